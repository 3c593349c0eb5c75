"""Which tensors of theirs are which of ours: the rules of a family, worked out for one graph, both ways."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from atinuke.core import dims
from atinuke.core.errors import fail
from atinuke.pipelines.pretrained.family import ZEROS, Family, Rule

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Move:
    """Tensors of ours and of theirs that hold the same numbers, by name, with their shapes; None stands for zeros."""

    ours: tuple[tuple[str, Shape], ...]
    theirs: tuple[tuple[str | None, Shape], ...]
    transpose: bool = False
    view: tuple[tuple[int, ...], ...] = ()
    order: tuple[int, ...] = ()

    def read(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Ours, of theirs."""
        dtype = next(iter(given.values())).dtype
        parts = []
        for number, (name, shape) in enumerate(self.theirs):
            part = torch.zeros(shape, dtype=dtype) if name is None else given[name]
            if self.transpose and part.ndim == 2:
                part = part.t()
            if self.view:
                part = part.reshape(self.view[number]).permute(self.order)
            parts.append(part.reshape(-1))
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        pieces = whole.split_with_sizes([math.prod(shape) for _, shape in self.ours])
        return {name: piece.reshape(shape) for (name, shape), piece in zip(self.ours, pieces, strict=True)}

    def write(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Theirs, of ours.

        Raises:
            AtinukeError: what has no name there is not zero.
        """
        parts = [given[name].reshape(-1) for name, _ in self.ours]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        pieces = whole.split_with_sizes([math.prod(shape) for _, shape in self.theirs])
        found = {}
        for number, ((name, shape), piece) in enumerate(zip(self.theirs, pieces, strict=True)):
            if name is None:
                if piece.any():
                    names = " + ".join(name for name, _ in self.ours)
                    raise fail(f"a part of `{names}` that is always zero there has become something else")
                continue
            if self.view:
                inside = [self.view[number][axis] for axis in self.order]
                back = [self.order.index(axis) for axis in range(len(self.order))]
                piece = piece.reshape(inside).permute(back)
            elif self.transpose and len(shape) == 2:
                piece = piece.reshape(shape[::-1]).t()
            found[name] = piece.reshape(shape)
        return found


@dataclass(frozen=True)
class Plan:
    """Every tensor of a graph by its name there. `copies` are names of theirs for tensors that the graph has tied, each
    with what its tensor is equal to; `untouched` are tensors of ours that theirs does not have (buffers)."""

    moves: tuple[Move, ...]
    copies: Mapping[str, Move]
    untouched: tuple[str, ...]

    def theirs(self) -> dict[str, Shape]:
        """The tensors that there must be, with their shapes."""
        return {name: shape for move in self.moves for name, shape in move.theirs if name is not None}


@dataclass(frozen=True)
class Weights:
    """The shapes of a graph's tensors: parameters and persistent buffers by their first names, and the further names of
    those that are tied."""

    parameters: Mapping[str, Shape]
    buffers: Mapping[str, Shape]
    tied: Mapping[str, str]


def plan(family: Family, weights: Weights, sizes: Mapping[str, Any], prefixed: bool) -> Plan:
    """How the tensors of a graph lie in a file of theirs; `sizes` are the graph's dims.

    Raises:
        AtinukeError: the rules do not name each of them once, or do not fit their shapes.
    """
    shapes = {**weights.parameters, **weights.buffers}
    claims: dict[str, str] = {}
    moves: list[Move] = []
    copies: dict[str, Move] = {}
    for written, rule in family.tensors.items():
        for ours, theirs in _instances(written, rule, [*shapes, *weights.tied]):
            if not prefixed:
                theirs = [name and name.removeprefix(family.prefix) for name in theirs]
            if len(ours) == 1 and len(theirs) == 1 and ours[0] in weights.tied:
                source = weights.tied[ours[0]]
                copies[theirs[0] or ""] = _move(family, written, rule, [(source, shapes[source])], theirs, sizes)
                continue
            if missing := [name for name in ours if name not in shapes]:
                raise _unfit(family, written, f"the graph has no `{missing[0]}`")
            for name in ours:
                if name in claims:
                    raise _unfit(family, written, f"`{name}` is named by `{claims[name]}` already")
                claims[name] = written
            moves.append(_move(family, written, rule, [(name, shapes[name]) for name in ours], theirs, sizes))
    if unnamed := [name for name in weights.parameters if name not in claims]:
        raise fail(
            f"family `{family.name}` does not say what `{unnamed[0]}` is called there",
            *([f"and {len(unnamed) - 1} more"] if unnamed[1:] else []),
            fix="add it under `tensors` in the family's file",
        )
    for copy, name in family.copies.items():
        if found := next((move for move in moves if [one for one, _ in move.theirs] == [name]), None):
            copies[copy] = replace(found, theirs=((copy, found.theirs[0][1]),))
    return Plan(tuple(moves), copies, tuple(name for name in weights.buffers if name not in claims))


def matches(patterns: Iterable[str], names: Iterable[str]) -> Iterator[str]:
    """The names that one of the patterns fits."""
    expressions = [_expression(pattern) for pattern in patterns]
    return (name for name in names if any(expression.fullmatch(name) for expression in expressions))


def _instances(written: str, rule: Rule, names: Sequence[str]) -> Iterator[tuple[list[str], list[str | None]]]:
    """The names of ours and of theirs that a rule stands for, in each layer."""
    ours = written.split(" + ")
    first = _expression(ours[0])
    for name in names:
        if found := first.fullmatch(name):
            groups = found.groups()
            yield (
                [_filled(one, groups) for one in ours],
                [None if one == ZEROS else _filled(one, groups) for one in rule.theirs],
            )


def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\#", "([0-9]+)").replace(r"\*", "(.+)"))


def _filled(pattern: str, groups: Sequence[str]) -> str:
    given = itertools.chain(groups, itertools.repeat(""))
    return re.sub(r"[#*]", lambda _: next(given), pattern)


def _move(
    family: Family,
    written: str,
    rule: Rule,
    ours: Sequence[tuple[str, Shape]],
    theirs: Sequence[str | None],
    sizes: Mapping[str, Any],
) -> Move:
    def unfit(why: str) -> Exception:
        return _unfit(family, written, why)

    def whole(expressions: Sequence[Any]) -> list[int]:
        try:
            found = [dims.evaluate(dims.parse(str(expression)), sizes) for expression in expressions]
        except (dims.UnknownName, ValueError) as error:
            raise unfit(str(error)) from None
        if any(type(size) is not int for size in found):
            raise unfit(f"sizes must be whole numbers, but are {found}")
        return found

    total = sum(math.prod(shape) for _, shape in ours)
    if rule.shape is not None:
        shapes = [tuple(whole(rule.shape))] * len(theirs)
    elif len(ours) == len(theirs) == 1:
        shapes = [ours[0][1]]
    else:
        rest = {shape[1:] for _, shape in ours}
        if len(rest) > 1 or any(not shape for _, shape in ours):
            raise unfit(f"tensors of shapes {[list(shape) for _, shape in ours]} cannot stand one after another")
        rows = sum(shape[0] for _, shape in ours)
        if len(rule.sizes) not in (0, len(theirs)) or (not rule.sizes and rows % len(theirs)):
            raise unfit(f"{rows} rows cannot be parted among {len(theirs)} tensors: give `sizes`")
        counts = whole(rule.sizes) if rule.sizes else [rows // len(theirs)] * len(theirs)
        shapes = [(count, *next(iter(rest))) for count in counts]
    if rule.transpose and rule.shape is None:
        shapes = [shape[::-1] if len(shape) == 2 else shape for shape in shapes]
    if sum(map(math.prod, shapes)) != total:
        raise unfit(f"theirs has {sum(map(math.prod, shapes))} numbers where ours has {total}")
    views: list[tuple[int, ...]] = []
    for shape in shapes if rule.view else ():
        view = whole(rule.view)
        if -1 in view:
            view[view.index(-1)] = math.prod(shape) // abs(math.prod(view))
        if math.prod(view) != math.prod(shape) or sorted(rule.order) != list(range(len(view))):
            raise unfit(f"a tensor of shape {list(shape)} has no view {view} in the order {list(rule.order)}")
        views.append(tuple(view))
    return Move(tuple(ours), tuple(zip(theirs, shapes, strict=True)), rule.transpose, tuple(views), rule.order)


def _unfit(family: Family, written: str, why: str) -> Exception:
    return fail(f"family `{family.name}`: the rule for `{written}` does not fit", why, fix="correct the family's file")
