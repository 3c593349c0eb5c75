"""Passes from graph to graph: named, each with what it requires and what it ensures."""

from collections.abc import Iterable
from dataclasses import replace

from atinuke.core.component import Rewrite
from atinuke.core.errors import fail
from atinuke.core.graph import Graph, Input, Node, Wire, frozen
from atinuke.core.registry import Registry

HEAD, HEAD_LOSS = "head.vocabulary", "head.vocabulary_loss"


def rewrite(graph: Graph, names: Iterable[str], registry: Registry) -> Graph:
    """The graph after the named passes, in their order.

    Raises:
        AtinukeError: a pass does not exist, or the graph is not as it requires.
    """
    for name in names:
        graph = registry.rewrite(name).apply(graph)
    return graph


def head_loss(graph: Graph, smoothing: float = 0.0) -> tuple[str, Node]:
    """The node that gives `logits`, and in its place one that gives their loss against the input `labels`.

    Raises:
        AtinukeError: `logits` do not come from head.vocabulary.
    """
    wire = graph.outputs.get("logits")
    node = graph.nodes.get(wire.node) if wire else None
    if wire is None or node is None or node.use != HEAD:
        raise fail(
            f"graph `{graph.name}` cannot be trained to predict tokens",
            f"its output `logits` must come from a node that uses {HEAD}",
            f"got {f'{wire} ({node.use})' if wire and node else 'no output `logits`'}",
            where=graph.place("outputs"),
            fix=f"end the graph with {HEAD} as output `logits`, or name another objective",
        )
    feeds = tuple(node.inputs.values()) if not isinstance(node.inputs, tuple) else node.inputs
    settings = {**node.settings, "smoothing": smoothing} if smoothing else node.settings
    return wire.node, replace(node, use=HEAD_LOSS, inputs=(*feeds, Wire("labels")), settings=frozen(settings))


def vocabulary_loss(graph: Graph) -> Graph:
    """Replaces the head that gives `logits` by one that gives the loss, so that logits are never held whole."""
    name, node = head_loss(graph)
    source = next((value for value in graph.inputs.values() if len(value.shape) == 2), None)
    if source is None:
        what = f"graph `{graph.name}` has no input [batch, sequence] for labels to be like"
        raise fail(what, where=graph.place("inputs"))
    others = {name: value for name, value in graph.outputs.items() if name.endswith("_loss")}
    return replace(
        graph,
        inputs=frozen({**graph.inputs, "labels": Input("int64", source.shape)}),
        nodes=frozen({**graph.nodes, name: node}),
        outputs=frozen({"loss": Wire(name), **others}),
    )


def prune(graph: Graph) -> Graph:
    """Removes the nodes that no output depends on, and the blocks that no node uses then."""
    found: set[str] = set()
    waiting = [wire.node for wire in graph.outputs.values()]
    while waiting:
        name = waiting.pop()
        if name in graph.nodes and name not in found:
            found.add(name)
            inputs = graph.nodes[name].inputs
            waiting += [wire.node for wire in (inputs if isinstance(inputs, tuple) else inputs.values())]
    nodes = {name: node for name, node in graph.nodes.items() if name in found}
    used: set[str] = set()
    uses = [node.use for node in nodes.values()]
    while uses:
        use = uses.pop()
        if use in graph.blocks and use not in used:
            used.add(use)
            uses += [node.use for node in graph.blocks[use].nodes.values()]
    blocks = {name: block for name, block in graph.blocks.items() if name in used}
    slots = {name: given for name, given in graph.slots.items() if name in found}
    return replace(graph, nodes=frozen(nodes), blocks=frozen(blocks), slots=frozen(slots))


VOCABULARY_LOSS = Rewrite(
    "vocabulary_loss",
    requires=f"output `logits` comes from {HEAD}; the first input is [batch, sequence]",
    ensures="input `labels`, output `loss` and the outputs that end in `_loss`; the same parameters by the same names",
    apply=lambda graph: prune(vocabulary_loss(graph)),
)
PRUNE = Rewrite("prune", requires="nothing", ensures="every node and block is needed by an output", apply=prune)
