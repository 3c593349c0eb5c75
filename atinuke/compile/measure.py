"""Measures what components compute and remember, by running them on the meta device, where nothing is computed.

What is counted is what torch counts (`torch.utils.flop_counter`), so a third party's component is counted as ours are,
and nobody declares anything.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from atinuke.compile.formula import Axes, Sizes, find_formula
from atinuke.compile.meta import build_meta, build_node
from atinuke.compile.step import StepPlan, plan_steps
from atinuke.core import dims
from atinuke.core.checked import ABSENT, CheckedBody, CheckedGraph, CheckedNode
from atinuke.core.cost import CAPACITY, Elements, Inputs, Work
from atinuke.core.dims import Size
from atinuke.core.errors import AtinukeError, fail
from atinuke.core.fit import Type
from atinuke.core.graph import Range

MULTIPLES = (1, 16)  # work that is cut into chunks is padded: it may have a formula only at multiples of a chunk
COMPARED = 1024  # the size of every free axis at which components that differ in their settings are compared


class MetaMeter:
    """The `Meter` of `atinuke.core.cost`. Equal components with equal inputs are measured once."""

    def __init__(self) -> None:
        self._works: dict[tuple[Any, ...], Work] = {}
        self._kinds: dict[tuple[Any, ...], list[Work]] = {}
        self._states: dict[tuple[type, str], Elements] = {}

    def work(self, title: str, node: CheckedNode, inputs: Inputs, axes: Mapping[str, Range]) -> Work:
        """The FLOPs of one forward pass through a component.

        A component that differs from a measured one in its settings alone (as the layers of a stack do in their index)
        is run once, to see whether the same formula holds.

        Raises:
            AtinukeError: it does not run on the meta device, or its work has no formula in the sizes of its wires.
        """
        inputs = {port: types for port, types in inputs.items() if ABSENT not in types}
        kind = (node.cls, tuple(inputs.items()))
        key = (*kind, _key(node.settings), _key(node.lora))
        if key not in self._works:
            free = {dims.axis(name): axis for name, axis in axes.items()}
            known = self._kinds.setdefault(kind, [])
            work = _compare(node, inputs, free, known) if known else None
            if work is None:
                work = _measure(title, node, inputs, free)
                known.append(work)
            self._works[key] = work
        return self._works[key]

    def caches(self, checked: CheckedGraph) -> dict[str, Elements] | None:
        """How much the nodes with a state remember, by path and dtype; None where the graph has no step form."""
        try:
            plan = plan_steps(checked)
        except AtinukeError:
            return None
        found: dict[str, dict[str, Size]] = {}
        batch = checked.body.inputs[plan.inputs[0]].shape[0]
        self._collect(checked.body, plan, "", batch, found)
        return dict(found)

    def _collect(
        self, body: CheckedBody, plan: StepPlan, title: str, batch: Size, found: dict[str, dict[str, Size]]
    ) -> None:
        for name in (name for name, tensors in plan.counts.items() if tensors):
            node = body.nodes[name]
            for inner in node.instances:
                self._collect(inner, plan.blocks[name], f"{title}{name}.", batch, found)
            if node.cls is not None:
                total = found.setdefault(f"{title}{name}", {})
                for dtype, numbers in self._state(node.cls, node.settings).items():
                    total[dtype] = total.get(dtype, 0) + numbers.subs(dims.axis("batch"), batch)

    def _state(self, cls: type, settings: Mapping[str, Any]) -> Elements:
        key = (cls, _key(settings))
        if key not in self._states:
            module: Any = build_meta(cls, settings)
            axes = {dims.axis(name): Range(1, COMPARED) for name in ("batch", CAPACITY)}
            found: dict[str, Size] = {}
            for dtype in sorted(set(map(_dtype, module.state(1, 1)))):
                formula = find_formula(partial(_numbers, module, dtype), axes, list(axes))
                if formula is None:
                    raise fail(
                        f"the state of {cls.__name__} has no formula in batch and capacity", where=cls.__module__
                    )
                found[dtype] = formula
            self._states[key] = found
        return self._states[key]


def _key(settings: Mapping[str, Any]) -> str:
    return repr(sorted(settings.items()))


def _compare(node: CheckedNode, inputs: Inputs, axes: Axes, known: Sequence[Work]) -> Work | None:
    """What was measured with other settings, where it gives what is counted with these."""
    sizes = {symbol: max(axis.low, min(axis.high, COMPARED)) for symbol, axis in axes.items()}
    try:
        found = _counter(node, inputs)(sizes)
    except Exception:  # _measure says why
        return None
    return next((work for work in known if work.flops.subs(sizes) == found), None)


def _measure(title: str, node: CheckedNode, inputs: Inputs, axes: Axes) -> Work:
    reason = "no polynomial in the sizes of its wires gives what was counted"
    types = [*node.outputs.values(), *(given for types in inputs.values() for given in types)]
    sizes = {size for given in types for size in given.shape}
    symbols = {symbol for size in sizes for symbol in size.free_symbols}
    parts = {part for size in sizes for part in size.atoms(sympy.floor, sympy.Mod, sympy.Min, sympy.Max)}
    free = {symbol: axis for symbol, axis in axes.items() if symbol in symbols}
    # What the wires' sizes are made of, or the sizes as they are: attention is quadratic in rows * columns + 1.
    made_of = [*free, *sorted(parts, key=str)]
    whole = sorted((size for size in sizes if not size.is_number), key=str)
    atoms = min(whole, made_of, key=len)
    for multiple in MULTIPLES:
        try:
            formula = find_formula(_counter(node, inputs), free, atoms, multiple)
        except Exception as error:  # a third party's forward() may raise anything
            reason = (str(error) or type(error).__name__).splitlines()[0]
            continue
        if formula is not None:
            return Work(formula, multiple)
    raise fail(
        f"{title}: the work of {node.node.use} cannot be counted",
        reason,
        where=node.node.where,
        fix="its forward() must run on the meta device, and its work must follow from the sizes of its wires",
    )


def _counter(node: CheckedNode, inputs: Inputs) -> Callable[[Sizes], int]:
    """Counts the FLOPs of a component at given sizes of the free axes."""
    assert node.signature is not None
    module = build_node(node).eval()
    ports = list(node.signature.inputs.values())

    def count(sizes: Sizes) -> int:
        tensors = {port: [_tensor(given, sizes) for given in types] for port, types in inputs.items()}
        positional = [tensor for port in ports if port.many for tensor in tensors.get(port.name, ())]
        named = {port.name: tensors[port.name][0] for port in ports if port.name in tensors and not port.many}
        with torch.no_grad(), _OnlyCountable(), FlopCounterMode(display=False) as counter:  # type: ignore[no-untyped-call]
            module(*positional, **named)
        return int(counter.get_total_flops())

    return count


class _OnlyCountable(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Objects to operators that are not torch's own, unless somebody has said how they are counted."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace not in ("aten", "prims", "prim") and func._overloadpacket not in flop_registry:
            raise NotImplementedError(f"torch cannot count {func}: give it a formula with register_flop_formula")
        return func(*args, **(kwargs or {}))


def _tensor(given: Type, sizes: Sizes) -> Tensor:
    shape = [int(size.subs(sizes)) for size in given.shape]
    dtype = torch.float32 if given.dtype == "float" else getattr(torch, given.dtype)
    return torch.empty(shape, dtype=dtype, device="meta")


def _numbers(module: Any, dtype: str, sizes: Sizes) -> int:
    state = module.state(*sizes.values())
    return sum(tensor.numel() for tensor in state if _dtype(tensor) == dtype)


def _dtype(tensor: Tensor) -> str:
    """The dtype of a state in the graph language: a floating one follows the parameters."""
    return "float" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
