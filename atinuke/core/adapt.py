"""Adaptation as rewrites of a graph: low-rank updates, bottleneck adapters and learned prefixes, where patterns say.

Patterns are shell's (`stack.*.H.qkv`) over paths as state dicts have them. A block is one thing however often it is
used, so what a pattern finds in one layer it must find in all of them. The names of the tensors that were there stay.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from atinuke.core.checked import CheckedBody, CheckedGraph, CheckedNode, Probe
from atinuke.core.errors import fail
from atinuke.core.graph import Block, Graph, Node, Wire, frozen
from atinuke.core.lora import frozen_lora
from atinuke.core.names import close

ADAPTER, PREFIX = "adapter.bottleneck", "learned_prefix"

Site = tuple[str | None, str]  # a block (None at the top) and a node in it


@dataclass(frozen=True)
class _Use:
    """One component of the expanded graph: where it is written, and its path in a state dict."""

    site: Site
    path: str
    node: CheckedNode


def find(patterns: Sequence[str], names: Iterable[str], where: str) -> set[str]:
    """The names that a pattern fits.

    Raises:
        AtinukeError: a pattern fits none.
    """
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        fitting = {name for name in names if fnmatchcase(name, pattern)}
        if not fitting:
            fix = close(pattern, names) or f"they are called like `{names[0]}`" if names else None
            raise fail(f"nothing is called `{pattern}`", where=where, fix=fix)
        found |= fitting
    return found


def add_lora(
    checked: CheckedGraph, on: Sequence[str], values: Mapping[str, Any], parts: Sequence[str], probe: Probe, where: str
) -> Graph:
    """The graph with low-rank updates (`values` as in a graph file) of the linear maps that are called like `on`; of
    those that are several in one, only the `parts`, if any are given.

    Raises:
        AtinukeError: a pattern or a part is of nothing, or of some uses of a block alone.
    """
    uses = list(_uses(checked.body))
    maps = {use.path: probe.linear_maps(use.node.cls, use.node.settings) for use in uses if use.node.cls}
    chosen = find(on, (f"{path}.{name}" for path, inner in maps.items() for name in inner), where)
    known = {part for path, inner in maps.items() for name in inner for part in inner[name].parts}
    for part in parts:
        if part not in known:
            raise fail(f"no linear map has a part `{part}`", where=where, fix=close(part, known))
    updates: dict[Site, dict[str, dict[str, Any]]] = {}
    for use in uses:
        for name, one in maps[use.path].items():
            if f"{use.path}.{name}" in chosen:
                mine = tuple(part for part in one.parts if part in parts)
                updates.setdefault(use.site, {})[name] = {**values, **({"parts": mine} if mine else {})}
    counts = {path: sum(f"{path}.{name}" in chosen for name in inner) for path, inner in maps.items()}
    _require_whole(counts, uses, where)
    graph = checked.graph
    for (block, name), update in updates.items():
        node = graph.body(block).nodes[name]
        graph = graph.with_node(name, replace(node, lora=frozen_lora({**node.lora, **update})), block)
    return graph


def add_adapters(checked: CheckedGraph, after: Sequence[str], size: int, where: str) -> Graph:
    """The graph with a bottleneck adapter behind what each of the nodes called like `after` gives.

    Raises:
        AtinukeError: a pattern is of nothing, or of some uses of a block alone; or the output of a node has no width.
    """
    widths: dict[Site, int] = {}
    firsts: dict[Site, str] = {}
    for use in _chosen(checked, after, where):
        firsts[use.site], given = next(iter(use.node.outputs.items()))
        width = given.shape[-1] if given.shape else None
        if given.dtype != "float" or width is None or not width.is_Integer:
            raise fail(f"what `{use.path}` gives has no width to adapt", f"got {given}", where=where)
        if widths.setdefault(use.site, int(width)) != int(width):
            raise fail(f"`{use.path}` is of another width than other uses of its block", where=where)
    graph = checked.graph
    for (block, name), width in widths.items():
        graph = _behind(graph, (block, name), width, size, firsts[(block, name)])
    return graph


def add_prefix(checked: CheckedGraph, on: Sequence[str], length: int, where: str) -> Graph:
    """The graph with so many learned keys and values in the attentions called like `on`.

    Raises:
        AtinukeError: a pattern is of nothing, of some uses of a block alone, or of a component without this setting.
    """
    graph = checked.graph
    for use in _chosen(checked, on, where):
        if use.node.signature is None or PREFIX not in use.node.signature.settings:
            what = f"`{use.path}` ({use.node.node.use}) has no setting `{PREFIX}`"
            raise fail(what, where=where, fix="name nodes that use attention.self or attention.wide")
        block, name = use.site
        node = graph.body(block).nodes[name]
        graph = graph.with_node(name, replace(node, settings=frozen({**node.settings, PREFIX: length})), block)
    return graph


def _uses(body: CheckedBody, block: str | None = None, path: str = "") -> Iterator[_Use]:
    for name, node in body.nodes.items():
        if node.cls is not None:
            yield _Use((block, name), f"{path}{name}", node)
        for index, inner in enumerate(node.instances):
            yield from _uses(inner, node.node.use, f"{path}{name}.{index}." if node.repeated else f"{path}{name}.")


def _chosen(checked: CheckedGraph, patterns: Sequence[str], where: str) -> list[_Use]:
    uses = list(_uses(checked.body))
    names = find(patterns, (use.path for use in uses), where)
    chosen = [use for use in uses if use.path in names]
    _require_whole({use.path: use.path in names for use in uses}, uses, where)
    return chosen


def _require_whole(chosen: Mapping[str, int], uses: Iterable[_Use], where: str) -> None:
    """As much must be chosen in every use of a block as in the first; `chosen` says how much, by path."""
    firsts: dict[Site, _Use] = {}
    for use in uses:
        first = firsts.setdefault(use.site, use)
        if chosen[use.path] != chosen[first.path]:
            node = ".".join(filter(None, use.site))
            what = f"`{first.path}` and `{use.path}` are the same node `{node}`, and not chosen alike"
            raise fail(what, where=where, fix="choose all uses of a block: stack.*.H")


def _behind(graph: Graph, site: Site, width: int, size: int, first: str) -> Graph:
    """The graph with an adapter behind a node: whoever read the node's `first` output reads the adapter."""
    block, name = site
    body = graph.body(block)
    new = f"{name}_adapter"
    if new in body.nodes or new in body.inputs:
        raise fail(f"`{new}` is a name that adaptation adds to the graph", where=graph.place("nodes"), fix="rename it")

    def moved(wire: Wire) -> Wire:
        return Wire(new) if wire.node == name and wire.output in (None, first) else wire

    nodes: dict[str, Node] = {}
    for own, node in body.nodes.items():
        if isinstance(node.inputs, tuple):
            nodes[own] = replace(node, inputs=tuple(map(moved, node.inputs)))
        else:
            nodes[own] = replace(node, inputs=frozen({port: moved(wire) for port, wire in node.inputs.items()}))
        if own == name:
            nodes[new] = Node(ADAPTER, (Wire(name),), frozen({"d_model": width, "size": size}))
    outputs = frozen({output: moved(wire) for output, wire in body.outputs.items()})
    changed = graph.with_nodes(nodes, block)
    if block is None:
        return replace(changed, outputs=outputs)
    inner: Block = replace(changed.blocks[block], outputs=outputs)
    return replace(changed, blocks=frozen({**changed.blocks, block: inner}))
