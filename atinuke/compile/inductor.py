"""torch.compile, the way these modules want it: block by block for training, one graph for a decoding step, packed
weights for a deployed program."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

FREEZING = {"freezing": True, "layout_optimization": False}
"""Weights are packed; convolutions keep their layout: torch 2.13 cannot change it behind the maximum of free sizes."""
State = tuple[Tensor, ...]
Step = Callable[..., tuple[Any, State]]


def compile_blocks(module: nn.Module) -> None:
    """Compiles, in place, every child of `module`, and of each list of repeated blocks every block.

    Blocks of one class share their code: the first one is compiled, the others find it in the cache, so start-up does
    not grow with depth. Other batch and sequence sizes do not compile again once a second one has been seen.
    """
    for child in module.children():
        for block in child if isinstance(child, nn.ModuleList) else (child,):
            block.compile()


def compile_step(model: nn.Module) -> Step:
    """`model.step`, compiled for single tokens; longer pieces (a prompt) run as they are.

    One graph serves every capacity of the caches; another batch size compiles once more, and so does the second length
    of what `model.prepare` gave. Beyond Dynamo's recompile limit comes an error (torch's `FailOnRecompileLimitHit`),
    never a silent return to eager. The weights may change in value after the first call, but not be replaced: guards on
    the module, which cost as much as a small layer, are left out.
    """
    compiled = torch.compile(
        _own_code(model.step),
        backend=_backend,
        fullgraph=True,
        options={"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe},
    )
    growing = [
        [axis for axis, (a, b) in enumerate(zip(small.shape, large.shape, strict=True)) if a != b]
        for small, large in zip(model.state(1, 2), model.state(1, 3), strict=True)  # type: ignore[operator]
    ]
    seen: set[int] = set()

    def step(
        input_ids: Tensor, position: Tensor, state: State, *prepared: State, last: Tensor | None = None
    ) -> tuple[Any, State]:
        batch, new = input_ids.shape
        if new != 1:
            return model.step(input_ids, position, state, *prepared, last=last)  # type: ignore[operator, no-any-return]
        if batch not in seen:
            seen.add(batch)
            for tensor, axes in zip(state, growing, strict=True):
                for axis in axes:
                    torch._dynamo.mark_dynamic(tensor, axis)
        return compiled(input_ids, position, state, *prepared)  # type: ignore[no-any-return, no-untyped-call]

    return step


def compile_program(module: nn.Module) -> Callable[..., tuple[Tensor, ...]]:
    """A module without memory of its own, compiled for answers: its weights are packed once, as this machine reads them
    fastest, and may not change afterwards.

    One graph serves all sizes; a size of 1 is compiled for itself. What is compiled stays in Inductor's cache on disk,
    so that another process finds it. Beyond Dynamo's recompile limit comes an error (torch's
    `FailOnRecompileLimitHit`), never a silent return to eager.
    """
    from torch._inductor import config as inductor
    from torch.fx.experimental import _config as symbolic

    compiled = torch.compile(
        _own_code(module.forward),
        fullgraph=True,
        dynamic=True,
        options={"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe},
    )

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        # Dynamo asks for freezing too, so it must be set around the call; as an option of torch.compile it does nothing
        with torch.no_grad(), inductor.patch(FREEZING), symbolic.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            return compiled(*inputs)  # type: ignore[no-any-return, no-untyped-call]

    return call


def _own_code(method: Any) -> Any:
    """A bound method with a code object of its own, which is what Dynamo keeps graphs by: without guards on the module,
    two instances of a class must not share a graph."""
    function = method.__func__
    code, more = function.__code__.replace(), (function.__name__, function.__defaults__, function.__closure__)
    own: Any = FunctionType(code, function.__globals__, *more)
    return own.__get__(method.__self__)


def _backend(graph: fx.GraphModule, inputs: list[Tensor]) -> Any:
    """Inductor, on a CPU after `stream_rows`: its cache sees a changed graph, but not a changed decomposition."""
    from torch._inductor.compile_fx import compile_fx

    device = next(t.device for t in inputs if isinstance(t, Tensor))
    if device.type == "cpu":
        stream_rows(graph)
    return compile_fx(graph, inputs)


def stream_rows(graph: fx.GraphModule) -> None:
    """Writes, in place, each linear layer that sees a single row as multiply and sum. The graph is one of Dynamo's, or
    an exported program's.

    Inductor makes of that one loop that reads the weight once, at nearly the bandwidth of the memory, and does the
    bias, the activation and the residual in the same loop; the library's product with one row reaches half of it.
    """
    nodes = graph.graph
    for target, seen in ((F.linear, "example_value"), (torch.ops.aten.linear.default, "val")):
        for node in nodes.find_nodes(op="call_function", target=target):
            x, weight, bias = (*node.args, *node.kwargs.values(), None)[:3]
            *lead, _ = x.meta[seen].shape
            one_row = all(isinstance(size, int) and size == 1 for size in lead)  # a symbolic size is never one row
            if not one_row or weight.meta[seen].stride(-1) != 1:
                continue
            with nodes.inserting_before(node):
                row = nodes.call_method("reshape", (x, (-1,)))
                result = nodes.call_method("sum", (nodes.call_function(torch.mul, (weight, row)), -1))
                if bias is not None:
                    result = nodes.call_function(torch.add, (result, bias))
                result = nodes.call_method("reshape", (result, (*lead, -1)))
            node.replace_all_uses_with(result)
            result.meta[seen] = node.meta[seen]
            nodes.erase_node(node)
    graph.recompile()
