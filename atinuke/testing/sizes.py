"""Sizes for the free names of a contract."""

import ast
import contextlib
import itertools
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import hypothesis
import sympy
from hypothesis import strategies as st

from atinuke.core import dims
from atinuke.core.dims import UnknownName
from atinuke.core.fit import Fit, MisfitError
from atinuke.core.signature import Dim, Port, Signature

LARGEST = 7


@dataclass(frozen=True)
class Sizes:
    """The size of every free name, and of the axes of every `*lead`."""

    names: Mapping[str, int]
    leads: Mapping[str, tuple[int, ...]]

    def __str__(self) -> str:
        leads = (f"*{name}={list(sizes)}" for name, sizes in self.leads.items())
        return ", ".join([*(f"{name}={size}" for name, size in self.names.items()), *leads]) or "none"

    def but(self, **names: int) -> "Sizes":
        """The same with other sizes for some names."""
        return replace(self, names={**self.names, **names})

    def fit(self, settings: Mapping[str, Any]) -> Fit:
        """What works out the contract's sizes."""
        names = {name: sympy.Integer(size) for name, size in self.names.items()}
        leads = {name: tuple(map(sympy.Integer, sizes)) for name, sizes in self.leads.items()}
        return Fit(settings, names, leads)

    def shape(self, port: Port, settings: Mapping[str, Any]) -> tuple[int, ...]:
        """The shape that a port promises.

        Raises:
            MisfitError: a size of the port cannot be told.
        """
        sizes = self.fit(settings).give(port).shape
        if not all(size.is_Integer for size in sizes):
            raise MisfitError(f"[{port.shape}] is not a row of whole numbers")
        return tuple(map(int, sizes))


def open_names(dim: Dim) -> list[str]:
    """The names in a size that are not settings."""
    return sorted(dims.names(dim.tree) - {f"self_{setting}" for setting in dim.settings})


def free_names(signature: Signature) -> dict[str, list[Dim]]:
    """The names that the inputs leave open, with every size of the contract that depends on them."""

    def names(ports: Iterable[Port]) -> Iterable[tuple[str, Dim]]:
        for dim in itertools.chain.from_iterable(port.shape.dims for port in ports):
            for name in open_names(dim):
                yield name, dim

    found: dict[str, list[Dim]] = {name: [] for name, _ in names(signature.inputs.values())}
    for name, dim in names([*signature.inputs.values(), *signature.outputs.values()]):
        if name in found:
            found[name].append(dim)
    return found


def draw_sizes(
    draw: st.DrawFn,
    signature: Signature,
    settings: Mapping[str, Any],
    ranks: Mapping[str, int],
    low: int,
    least: int,
    smallest: bool = False,
) -> Sizes:
    """Sizes that are all distinct, so that no axis passes for another; or all `low`, but for those in arithmetic."""
    used: set[int] = set()

    def size(lowest: int, highest: int, plain: bool = True) -> int:
        if smallest and plain:
            return low
        choices = [number for number in range(lowest, highest + 1) if number not in used]
        if not choices:
            hypothesis.reject()
        number: int = draw(st.sampled_from(choices))
        used.add(number)
        return number

    free = free_names(signature)
    plain = {name: all(dim.name for dim in of) for name, of in free.items()}
    most = Sizes({name: _highest(name, of, signature, settings) for name, of in free.items()}, {})
    names = {}
    for name, highest in sorted(most.names.items(), key=lambda item: item[1]):
        lowest = low if plain[name] else max(low, first_possible(name, most, signature, settings, least))
        names[name] = size(lowest, highest, plain[name])
    leads = {lead: tuple(size(low, LARGEST) for _ in range(rank)) for lead, rank in ranks.items()}
    sizes = Sizes({name: names[name] for name in free}, leads)
    if not possible(sizes, signature, settings, least):
        hypothesis.reject()
    return sizes


def _highest(name: str, of: list[Dim], signature: Signature, settings: Mapping[str, Any]) -> int:
    """The largest size to draw: well beyond what a name is divided by or lessened by, and within its limit."""
    numbers = [0]
    for dim in of:
        if dim.name is None:
            found = [node.value for node in ast.walk(dim.tree) if isinstance(node, ast.Constant)]
            found += [settings[setting] for setting in dim.settings]
            numbers += [number for number in found if isinstance(number, int)]
    highest = LARGEST + 4 * max(numbers)
    return min(highest, settings[signature.limits[name]]) if name in signature.limits else highest


def possible(sizes: Sizes, signature: Signature, settings: Mapping[str, Any], least: int = 1) -> bool:
    """Whether no port is empty, and nothing that is worked out from free names is below `least`.

    What an output cannot tell is for the laws to report.
    """
    fit = sizes.fit(settings)

    def fits(dim: Dim) -> bool:
        parts = (
            node for node in ast.walk(dim.tree) if isinstance(node, ast.BinOp) and dims.names(node) & sizes.names.keys()
        )
        derived = [fit.size(part) for part in parts if not isinstance(part.op, ast.Mod)] if least > 1 else []
        return fit.size(dim.tree) >= 1 and all(size >= least for size in derived)

    try:
        if not all(fits(dim) for port in signature.inputs.values() for dim in port.shape.dims):
            return False
    except (UnknownName, ValueError):
        return False
    with contextlib.suppress(UnknownName, ValueError):
        return all(fits(dim) for port in signature.outputs.values() for dim in port.shape.dims)
    return True


def first_possible(name: str, sizes: Sizes, signature: Signature, settings: Mapping[str, Any], least: int = 1) -> int:
    """The smallest size of a name with which the others are `possible`; its present size where none below is."""
    tried = range(1, sizes.names[name])
    return 1 + bisect_left(tried, True, key=lambda n: possible(sizes.but(**{name: n}), signature, settings, least))
