"""Changes to a graph from outside: `--set d_model=512` and `--swap layer.P=identity`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from atinuke.core.document import scalar
from atinuke.core.errors import AtinukeError, Mistake, fail, raise_all
from atinuke.core.graph import Graph, Node, Range, frozen
from atinuke.core.names import close
from atinuke.core.registry import Registry
from atinuke.core.signature import Signature, read_signature
from atinuke.core.spec import RANGE

ASSIGNMENT = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*(.*?)\s*")
COMPONENT = re.compile(r"\s*([^()\s]+)\s*(?:\((.*)\))?\s*")


def override(
    graph: Graph, sets: Iterable[str] = (), swaps: Iterable[str] = (), registry: Registry | None = None
) -> Graph:
    """The graph with dims and axes set and components swapped.

    `sets` are texts such as `d_model=512` or `sequence=1..2048`. `swaps` are texts such as `E=vision.patches` or
    `layer.P=position.layerwise(turns=0)`: the node keeps its wires and the settings that the new component has too;
    a setting that the new component requires, and that a dim is named after, takes that dim.

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
        if not isinstance(low, int) or not isinstance(high, int) or not 1 <= low <= high:
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
    block, name = _find(graph, target.strip(), where)
    node = graph.body(block).nodes[name]
    given = _arguments(match[2] or "", where)
    if match[1] in graph.blocks:
        return graph.with_node(name, replace(node, use=match[1], settings=frozen(given)), block)
    try:
        signature = read_signature(registry.load(match[1]))
    except AtinukeError as error:
        raise AtinukeError(*(replace(mistake, where=where) for mistake in error.mistakes)) from None
    return graph.with_node(name, _fitted(node, match[1], signature, given, graph.dims), block)


def _find(graph: Graph, target: str, where: str) -> tuple[str | None, str]:
    """The block (None at the top) and name of a node: `E`, or `layer.P` for one inside a block."""
    block, _, name = target.rpartition(".")
    if block and block not in graph.blocks:
        raise fail(f"the graph has no block `{block}`", where=where, fix=close(block, graph.blocks))
    nodes = graph.body(block or None).nodes
    if name in nodes:
        return block or None, name
    inside = [f"{b}.{name}" for b, body in graph.blocks.items() if name in body.nodes]
    raise fail(f"the graph has no node `{target}`", where=where, fix=close(target, inside or nodes))


def _arguments(text: str, where: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        match = ASSIGNMENT.fullmatch(part)
        if not match or match[1] in given:
            raise fail("settings must look like (name=value, ...)", f"got {part!r}", where=where)
        given[match[1]] = _value(match[2], where)
    return given


def _fitted(node: Node, use: str, signature: Signature, given: Mapping[str, Any], dims: Mapping[str, Any]) -> Node:
    """The node with another component: what it was given and the new one has too is kept."""
    kept = {name: value for name, value in node.settings.items() if name in signature.settings}
    named = {name: f"${name}" for name, s in signature.settings.items() if s.required and name in dims}
    inputs = node.inputs
    if isinstance(inputs, Mapping):
        inputs = frozen({port: wire for port, wire in inputs.items() if port in signature.inputs})
        if len(inputs) < len(node.inputs) and not inputs:
            inputs = tuple(node.inputs.values())[: len(signature.inputs)]  # type: ignore[union-attr]
    return replace(node, use=use, inputs=inputs, settings=frozen({**named, **kept, **given}), tie=frozen())
