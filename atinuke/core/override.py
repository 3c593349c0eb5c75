"""Changes to a graph from outside: `--set d_model=512` and `--swap layer.P=identity`."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from atinuke.core.document import scalar
from atinuke.core.errors import AtinukeError, Mistake, fail, raise_all
from atinuke.core.graph import Graph, Range, frozen
from atinuke.core.names import close
from atinuke.core.registry import Registry
from atinuke.core.spec import RANGE, reference_error
from atinuke.core.swap import swap

ASSIGNMENT = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*(.*?)\s*")
COMPONENT = re.compile(r"\s*([^()\s]+)\s*(?:\((.*)\))?\s*")


def override(
    graph: Graph, sets: Iterable[str] = (), swaps: Iterable[str] = (), registry: Registry | None = None
) -> Graph:
    """The graph with dims and axes set and components swapped.

    `sets` are texts such as `d_model=512` or `sequence=1..2048`. `swaps` are texts such as `E=vision.patches` or
    `layer.P=position.layerwise(turns=0)` (see `swap.swap`).

    Raises:
        AtinukeError: with everything that does not fit.
    """
    mistakes: list[Mistake] = []
    for change, texts in ((_set, sets), (lambda g, t: _swap(g, t, registry or Registry()), swaps)):
        for text in texts:
            try:
                graph = change(graph, text)
            except AtinukeError as error:
                mistakes += error.mistakes
    raise_all(mistakes)
    return graph


def _set(graph: Graph, text: str) -> Graph:
    where = f"--set {text}"
    match = ASSIGNMENT.fullmatch(text)
    if not match:
        raise fail("must look like name=value", where=where, fix="write for instance d_model=512")
    name, value = match[1], _value(match[2], where)
    if name in graph.dims:
        if not isinstance(value, int | float | str) or value == "":
            raise fail("a dim must be a number or an expression", f"got {match[2]!r}", where=where)
        return replace(graph, dims=frozen({**graph.dims, name: value}))
    if name in graph.axes:
        bounds = RANGE.fullmatch(match[2])
        low, high = (int(bounds[1]), int(bounds[2])) if bounds else (value, value)
        if type(low) is not int or type(high) is not int or not 1 <= low <= high < 10**15:
            raise fail("an axis must be a range such as 1..64", f"got {match[2]!r}", where=where)
        return replace(graph, axes=frozen({**graph.axes, name: Range(low, high)}))
    raise fail(f"the graph has no dim or axis `{name}`", where=where, fix=close(name, [*graph.dims, *graph.axes]))


def _value(text: str, where: str) -> Any:
    quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
    try:
        return scalar(text[1:-1] if quoted else text, plain=not quoted)
    except ValueError as error:
        raise fail(str(error), where=where) from None


def _swap(graph: Graph, text: str, registry: Registry) -> Graph:
    where = f"--swap {text}"
    target, equals, written = text.partition("=")
    match = COMPONENT.fullmatch(written)
    if not equals or not match:
        raise fail("must look like node=component", where=where, fix="write for instance layer.P=identity")
    given = _arguments(match[2] or "", where)
    try:
        return swap(graph, target.strip(), match[1], given, registry)
    except AtinukeError as error:
        raise AtinukeError(*(replace(mistake, where=where) for mistake in error.mistakes)) from None


def _arguments(text: str, where: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        match = ASSIGNMENT.fullmatch(part)
        if not match or match[1] in given:
            raise fail("settings must look like (name=value, ...)", f"got {part!r}", where=where)
        value = _value(match[2], where)
        if isinstance(value, str) and (error := reference_error(value)):
            raise fail(f"setting `{match[1]}` cannot be read", error, where=where)
        given[match[1]] = value
    return given
