"""What a bench needs torch for: eager against compiled, and the work in a program."""

import copy
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from atinuke.compile.front import open_graph
from atinuke.compile.inductor import compile_blocks, compile_step
from atinuke.compile.module import build
from atinuke.compile.programs import programs
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.names import close
from atinuke.pipelines.feed_text import require_text
from atinuke.runtime.bench import FORWARD, Call, Report, Task, Way, Work, compare
from atinuke.runtime.bundle import GRAPH, Bundle
from atinuke.runtime.interface import Array, Port, work_out
from atinuke.runtime.limits import measure

DECODE = "decode"
USUAL = (8, 128)


@torch.inference_mode()
def bench_model(
    subject: str,
    checked: CheckedGraph,
    model: nn.Module,
    at: Mapping[str, int] = MappingProxyType({}),
    rounds: int = 10,
    threads: int | None = None,
) -> Report:
    """Forward over texts, then decoding one text token by token; of 8 texts of 128 tokens unless `at` says otherwise.

    `model` is built from `checked`, and is put into evaluation mode. `first_call` is what compiling costs.

    Raises:
        AtinukeError: the graph does not read tokens and give logits, or a size is outside its axis.
    """
    if threads:
        torch.set_num_threads(threads)
    model.eval()
    sizes = _sizes(checked, at)
    batch, sequence = sizes.values()
    vocabulary = int(checked.body.outputs["logits"].shape[-1])
    ids = torch.randint(0, vocabulary, (batch, sequence), generator=torch.Generator().manual_seed(0))
    compiled = copy.deepcopy(model)
    compile_blocks(compiled)
    calls: dict[str, dict[str, Call]] = {
        "eager": {FORWARD: lambda: model(ids).logits.float().numpy()},
        "compiled": {FORWARD: lambda: compiled(ids).logits.float().numpy()},
    }
    tasks = [Task(FORWARD, ids.numel(), "tokens", works(checked, sizes, step=False)[FORWARD])]
    if hasattr(model, "step"):
        steps: dict[str, Any] = {"eager": model.step, "compiled": compile_step(model)}
        for name, step in steps.items():
            calls[name][DECODE] = _decoding(model, step, ids[:1])
        tasks.append(Task(DECODE, sequence, "tokens"))
    limits = measure(threads or torch.get_num_threads())
    ways = tuple(Way(name, "fp32") for name in calls)
    return Report(subject, sizes, rounds, limits, ways, tuple(compare(ways, calls, tasks, rounds, limits)))


def _sizes(checked: CheckedGraph, at: Mapping[str, int]) -> dict[str, int]:
    graph = checked.graph
    require_text(checked)
    usual = dict(zip(graph.inputs["input_ids"].shape, USUAL, strict=True))
    sizes: dict[str, int] = {}
    for name, size in {**usual, **at}.items():
        if name not in usual:
            raise fail(f"there is no axis `{name}`", where=f"--at {name}={size}", fix=close(name, usual))
        axis = graph.axes.get(name)
        if axis and not axis.low <= size <= axis.high:
            raise fail(f"axis `{name}` must be {axis}", f"got {size}", fix=f"choose a size with --at {name}=SIZE")
        sizes[name] = size
    return sizes


def _decoding(model: Any, step: Callable[..., Any], row: Tensor) -> Call:
    def decode() -> Array:
        state = model.state(1, row.shape[1])
        logits = []
        for at in range(row.shape[1]):
            output, state = step(row[:, at : at + 1], torch.tensor([at]), state)
            logits.append(output.logits)
        return torch.cat(logits, dim=1).float().numpy()

    return decode


def bundle_works(bundle: Bundle, sizes: Mapping[str, int]) -> dict[str, Work]:
    """The work in the programs of a bundle, by its graph."""
    checked = open_graph(str(bundle.folder / GRAPH))
    given = {port.name for one in bundle.programs.values() for port in one.inputs}
    without = [name for name in checked.graph.inputs if name not in given]
    return works(checked, sizes, FORWARD not in bundle.programs, without)


def works(
    checked: CheckedGraph, sizes: Mapping[str, int], step: bool = True, without: Collection[str] = ()
) -> dict[str, Work]:
    """The work of a call of each program at these sizes, counted on the meta device, where nothing is computed."""
    found, carried = {}, dict[str, Tensor]()
    for name, program in programs(checked, build(checked, device="meta"), step, without).items():
        inputs = [
            carried[port.name] if port.name in carried else _empty(port, sizes) for port in program.interface.inputs
        ]
        with torch.no_grad(), FlopCounterMode(display=False) as counter, _Weights(program.module) as weights:
            outputs = program.module(*inputs)
        carried |= {port.name: one for port, one in zip(program.interface.outputs, outputs, strict=True)}
        found[name] = Work(counter.get_total_flops(), weights.count)
    return found


def _empty(port: Port, sizes: Mapping[str, int]) -> Tensor:
    shape = [work_out(str(size), sizes) for size in port.shape]
    return torch.empty(shape, dtype=getattr(torch, port.dtype), device="meta")


class _Weights(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the weights that matrix products and convolutions read."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes = {one.untyped_storage()._cdata: one.numel() for one in module.parameters()}
        self._read: set[int] = set()

    @property
    def count(self) -> int:
        return sum(self._sizes[one] for one in self._read)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in flop_registry:
            tensors = [one.untyped_storage()._cdata for one in args if isinstance(one, Tensor)]
            self._read |= self._sizes.keys() & tensors
        return func(*args, **(kwargs or {}))
