"""A part of a graph as a graph: some wires as its outputs, and only what these depend on."""

from collections.abc import Mapping
from dataclasses import replace

from atinuke.core.graph import Graph, Wire, frozen
from atinuke.core.rewrite import prune


def part(graph: Graph, outputs: Mapping[str, Wire]) -> Graph:
    """The part of the graph that gives these outputs, with the nodes, inputs and blocks that it needs; names of nodes,
    and so of parameters, stay as they are."""
    kept = prune(replace(graph, outputs=frozen(outputs)))
    read = {wire.node for wire in outputs.values()}
    for node in kept.nodes.values():
        read |= {wire.node for wire in (node.inputs if isinstance(node.inputs, tuple) else node.inputs.values())}
    return replace(kept, inputs=frozen({name: given for name, given in kept.inputs.items() if name in read}))
