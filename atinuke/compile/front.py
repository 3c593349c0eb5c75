"""From a graph file to a checked graph, in one call: read, override, check; every mistake at once."""

from collections.abc import Iterable

from atinuke import graphs
from atinuke.compile.meta import MetaProbe
from atinuke.core.check import inspect_graph
from atinuke.core.checked import CheckedGraph
from atinuke.core.document import read_text
from atinuke.core.errors import AtinukeError, Mistake, raise_all
from atinuke.core.graph import Graph
from atinuke.core.override import override
from atinuke.core.registry import Registry
from atinuke.core.spec import load_text


def open_graph(
    name: str, sets: Iterable[str] = (), swaps: Iterable[str] = (), registry: Registry | None = None
) -> CheckedGraph:
    """A checked graph from a file, or from the name of one that ships, with `d_model=512` set and `E=...` swapped.

    Raises:
        AtinukeError: with every mistake in the file and in the changes, and where these can be made, in the graph.
    """
    path = graphs.path(name)
    graph, mistakes = load_text(read_text(path), str(path))
    registry = registry or Registry()
    try:
        graph = override(graph, sets, swaps, registry)
    except AtinukeError as error:  # a graph that was not changed as it should be is not checked
        raise AtinukeError(*mistakes, *error.mistakes) from None
    return check_graph(graph, registry, mistakes)


def check_graph(graph: Graph, registry: Registry | None = None, mistakes: Iterable[Mistake] = ()) -> CheckedGraph:
    """A graph checked with the constructors of its components; `mistakes` are those already found in its file."""
    checked, found = inspect_graph(graph, registry or Registry(), MetaProbe())
    raise_all(sorted(dict.fromkeys((*mistakes, *found)), key=lambda mistake: getattr(mistake.where, "line", 0)))
    assert checked is not None
    return checked
