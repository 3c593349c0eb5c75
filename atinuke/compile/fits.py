"""What could be swapped in for a node."""

from collections.abc import Iterator
from dataclasses import dataclass

from atinuke.compile.meta import MetaProbe
from atinuke.core.check import inspect_graph
from atinuke.core.errors import AtinukeError
from atinuke.core.graph import Graph
from atinuke.core.registry import Registry
from atinuke.core.signature import read_signature
from atinuke.core.swap import find_node, swap


@dataclass(frozen=True)
class Candidate:
    """A component or block that fits a node; or, where `missing` names settings that no dim gives, that may fit."""

    name: str
    summary: str
    missing: tuple[str, ...] = ()


def candidates(graph: Graph, target: str, registry: Registry) -> Iterator[Candidate]:
    """The blocks of the graph and the components of all plugins that the graph holds together with, at a node.

    Raises:
        AtinukeError: there is no such node.
    """
    block, name = find_node(graph, target)
    own = graph.body(block).nodes[name].use
    for use in graph.blocks:
        if use != own and _holds(graph, target, use, registry):
            yield Candidate(use, "a block of this file")
    for plugin in ("", *registry.plugins()):
        try:
            components = registry.components(plugin)
        except AtinukeError:  # a broken plugin fits nothing; `plugins list` says what is wrong with it
            continue
        for use, component in components.items():
            try:
                swapped = swap(graph, target, use, {}, registry)
                settings = read_signature(registry.load(use)).settings
            except AtinukeError:
                continue
            given = swapped.body(block).nodes[name].settings
            missing = tuple(key for key, setting in settings.items() if setting.required and key not in given)
            if use != own and (_only_misses(swapped, registry) if missing else _sound(swapped, registry)):
                yield Candidate(use, component.summary, missing)


def _holds(graph: Graph, target: str, use: str, registry: Registry) -> bool:
    try:
        return _sound(swap(graph, target, use, {}, registry), registry)
    except AtinukeError:
        return False


def _sound(graph: Graph, registry: Registry) -> bool:
    return not inspect_graph(graph, registry, MetaProbe())[1]


def _only_misses(graph: Graph, registry: Registry) -> bool:
    return all("is missing" in mistake.what for mistake in inspect_graph(graph, registry, MetaProbe())[1])
