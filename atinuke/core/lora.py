"""Low-rank updates of the linear maps inside a component (LoRA, Hu et al., 2021), as a graph file asks for them.

    H: {use: attention.self, ..., lora: {qkv: {rank: 8, alpha: 16, parts: [q, v]}}}

A map W becomes W + alpha/rank * B A. Where one map is several in one, as queries, keys and values often are, `parts`
are those that are updated, each by an A and a B of its own; without it the map has one A and one B as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atinuke.core.graph import frozen
from atinuke.core.names import close

KEYS = ("rank", "alpha", "parts", "dropout")
A, B = "lora_A", "lora_B"


@dataclass(frozen=True)
class LinearMap:
    """A linear map inside a component: its sizes, and the outputs of each part where it is several maps in one."""

    inputs: int
    outputs: int
    parts: Mapping[str, int]


@dataclass(frozen=True)
class LoRA:
    """A low-rank update, worked out. `dropout` is that of what A reads while training."""

    rank: int
    alpha: float
    parts: tuple[str, ...] | None = None
    dropout: float = 0.0

    def shapes(self, on: LinearMap) -> dict[str, tuple[int, int]]:
        """The shapes of its parameters: all As one above the other, and all Bs."""
        outputs = on.outputs if self.parts is None else sum(on.parts[part] for part in self.parts)
        return {A: (self.rank * len(self.parts or (A,)), on.inputs), B: (outputs, self.rank)}


def read_lora(values: Mapping[str, Any]) -> LoRA:
    """An update from the values of a graph file, `alpha` being the rank unless it is given.

    Raises:
        ValueError: a value is of another kind or out of range.
    """
    rank, dropout = values.get("rank"), values.get("dropout", 0.0)
    alpha, parts = values.get("alpha", rank), values.get("parts")
    if type(rank) is not int or rank < 1:
        raise ValueError(f"rank must be a whole number, at least 1, but is {rank!r}")
    if not _number(alpha) or alpha <= 0:
        raise ValueError(f"alpha must be a number above 0, but is {alpha!r}")
    if not _number(dropout) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, but is {dropout!r}")
    if parts is not None:
        if not isinstance(parts, list | tuple) or not parts or not all(isinstance(part, str) for part in parts):
            raise ValueError(f"parts must be a list of names, but is {parts!r}")
        if len(set(parts)) < len(parts):
            raise ValueError(f"parts names one twice: {', '.join(parts)}")
    return LoRA(rank, float(alpha), parts and tuple(parts), float(dropout))


def misfit(name: str, lora: LoRA, maps: Mapping[str, LinearMap]) -> tuple[str, str | None] | None:
    """Why a component with these linear maps cannot have this update of the one called `name`, and what to try."""
    if name not in maps:
        return f"has no linear map `{name}`", close(name, maps) or "it has none at all"
    on = maps[name]
    unknown = [part for part in lora.parts or () if part not in on.parts]
    if unknown:
        there = f"use `parts` of: {', '.join(on.parts)}" if on.parts else f"leave out `parts`: `{name}` is one map"
        return f"`{name}` has no part `{unknown[0]}`", there
    smallest = min(on.inputs, *(on.parts[part] for part in lora.parts)) if lora.parts else min(on.inputs, on.outputs)
    if lora.rank > smallest:
        return f"rank {lora.rank} of `{name}` is more than {smallest}, which its matrix can have", "lower the rank"
    return None


def frozen_lora(written: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """Updates by linear map, as a node holds them."""
    return frozen({name: frozen(values) for name, values in written.items()})


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
