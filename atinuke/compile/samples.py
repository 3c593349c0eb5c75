"""Inputs for a program at given sizes of its axes: for exporting it, and for holding two forms of it together."""

from collections.abc import Mapping

import torch
from torch import Tensor

from atinuke.compile.programs import Program
from atinuke.core.checked import CheckedBody, CheckedGraph
from atinuke.core.errors import fail
from atinuke.runtime.interface import Axes, Port, work_out

Sizes = Mapping[str, int]


def draw(checked: CheckedGraph, program: Program, sizes: Sizes, seed: int = 0) -> tuple[Tensor, ...]:
    """Inputs of the program in order. Whole numbers are indices that the components allow; masks hide the end of every
    row but the first; caches are full, up to a position that leaves room for the new tokens."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(_tensor(checked, given, sizes, generator) for given in program.interface.inputs)


def _tensor(checked: CheckedGraph, given: Port, sizes: Sizes, generator: torch.Generator) -> Tensor:
    shape = [size if isinstance(size, int) else work_out(size, sizes) for size in given.shape]
    dtype: torch.dtype = getattr(torch, given.dtype)
    if given.name == "position":
        room = sizes["capacity"] - sizes.get("sequence", 1)
        return torch.randint(max(room, 0) + 1, shape, generator=generator)
    if given.name == "last":
        return torch.randint(sizes["sequence"], shape, generator=generator)
    if dtype == torch.bool:
        if len(shape) == 1:
            return torch.arange(shape[0]) % 2 == 0
        length = shape[-1]
        kept = torch.randint(-(-length // 2), length + 1, (*shape[:-1], 1), generator=generator)
        kept[0] = length
        return torch.arange(length) < kept
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    below = 256 if dtype == torch.uint8 else indices(checked.body, given.name)
    return torch.randint(below, shape, generator=generator).to(dtype)


def indices(body: CheckedBody, name: str) -> int:
    """How many different numbers an input of whole numbers may hold: the smallest setting of what reads it, or the
    size of its vocabulary."""
    least = 1 << 16
    for node in body.nodes.values():
        for port, wires in node.feeds.items():
            if any(wire.node == name for wire in wires):
                if node.instances:
                    least = min(least, indices(node.instances[0], port))
                elif "vocab_size" in node.settings:
                    least = min(least, node.settings["vocab_size"])
                else:
                    least = min(least, *(v for v in node.settings.values() if type(v) is int and v > 0), least)
    return least


def example(axes: Axes) -> dict[str, int]:
    """Sizes to export at: not the least, so that what is worked out of them (pairs of tokens, patches) is 2 at least
    too, and no two alike where the ranges allow it."""
    found: dict[str, int] = {}
    for place, (name, (low, high)) in enumerate(axes.items()):
        size = 2 * low + 3 + place
        while size in found.values() and size < high:
            size += 1
        found[name] = min(size, high)
    if "capacity" in found and found.get("sequence", 1) > found["capacity"]:
        raise fail("axis `capacity` is shorter than `sequence`", fix="compile with a longer context")
    return found
