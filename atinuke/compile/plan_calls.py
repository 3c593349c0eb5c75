"""At which sizes a program is compared, and what each call asks of this machine."""

import copy
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from atinuke.compile.programs import Program
from atinuke.compile.samples import Sizes, example
from atinuke.runtime.interface import CAPACITY, Port, work_out

INSIDE = 3
WHOLE = 64
EXAMPLE, CORNER, ALONG, INNER = "example", "corner", "along an axis", "inside"


def points(program: Program, seed: int = 0) -> Iterator[tuple[str, dict[str, int]]]:
    """The sizes at which a program is compared, each once, with how they were chosen: those of the export; every corner
    of the axes; along each axis, the others at their smallest, every size of a short one and of a long one those at and
    beside the powers of two; and a few drawn inside."""
    axes = program.axes
    low = {name: axis[0] for name, axis in axes.items()}
    found = [(EXAMPLE, example(axes))]
    found += [(CORNER, dict(zip(axes, sizes, strict=True))) for sizes in itertools.product(*axes.values())]
    found += [(ALONG, {**low, name: size}) for name, axis in axes.items() for size in _along(*axis)]
    generator = random.Random(seed)  # noqa: S311 - sizes, not secrets
    for _ in range(INSIDE):
        found.append((INNER, {name: generator.randint(*axis) for name, axis in axes.items()}))
    seen = set()
    for kind, drawn in found:
        sizes = _fitting(drawn)
        if tuple(sizes.values()) not in seen:
            seen.add(tuple(sizes.values()))
            yield kind, sizes


def _fitting(sizes: dict[str, int]) -> dict[str, int]:
    """Sizes at which what is written fits into the caches."""
    if CAPACITY not in sizes:
        return sizes
    return {**sizes, CAPACITY: max(sizes[CAPACITY], sizes.get("sequence", 1))}


def _along(low: int, high: int) -> list[int]:
    if high - low < WHOLE:
        return list(range(low, high + 1))
    near = {power + by for power in (1 << k for k in range(high.bit_length() + 1)) for by in (-1, 0, 1)}
    return sorted(size for size in {*near, low + 1, high - 1} if low < size < high)


@dataclass(frozen=True)
class Weight:
    """What a call asks for: FLOPs, bytes that it holds at once, and bytes of its inputs and outputs."""

    flops: int
    memory: int
    stored: int


class Scale:
    """Weighs calls of a program by running it on the meta device, where nothing is computed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.module = on_meta(program.module)
        self._known: dict[tuple[int, ...], Weight] = {}

    def along(self, sizes: Sizes) -> Weight:
        """No less than what a call asks for where one axis alone is not at its smallest: work grows no slower than in
        proportion, so that the two ends of the axis will do."""
        axes = self.program.axes
        name = next(name for name, size in sizes.items() if size > axes[name][0])
        low, high = axes[name]
        share = (sizes[name] - low) / (high - low)
        least, most = (self(_fitting({**sizes, name: end})) for end in axes[name])
        pairs = zip(vars(least).values(), vars(most).values(), strict=True)
        return Weight(*(round(a + (b - a) * share) for a, b in pairs))

    def __call__(self, sizes: Sizes) -> Weight:
        """What a call at these sizes asks for. The memory is an estimate: what goes in and out and, twice, the largest
        operation."""
        key = tuple(sizes.values())
        if key not in self._known:
            self._known[key] = self._weigh(sizes)
        return self._known[key]

    def _weigh(self, sizes: Sizes) -> Weight:
        inputs = tuple(_empty(port, sizes) for port in self.program.interface.inputs)
        with torch.no_grad(), _Largest() as largest, FlopCounterMode(display=False) as counter:  # type: ignore[no-untyped-call]
            outputs = self.module(*inputs)
        stored = _bytes((inputs, outputs))
        return Weight(int(counter.get_total_flops()), 2 * stored + 2 * largest.bytes, stored)


def on_meta(module: nn.Module) -> nn.Module:
    """A copy without weights; the weights are not copied on the way."""
    known: dict[int, Any] = {id(weight): nn.Parameter(_meta(weight), False) for weight in module.parameters()}
    known |= {id(buffer): _meta(buffer) for buffer in module.buffers()}
    return copy.deepcopy(module, known)


def _meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


def _empty(port: Port, sizes: Mapping[str, int]) -> Tensor:
    shape = [size if isinstance(size, int) else work_out(size, sizes) for size in port.shape]
    return torch.empty(shape, dtype=getattr(torch, port.dtype), device="meta")


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the bytes of the largest operation: what it reads and what it gives."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        self.bytes = max(self.bytes, _bytes((args, kwargs, outputs)))
        return outputs


def _bytes(tree: Any) -> int:
    """An expanded tensor counts as what it shows: engines write it out."""
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
