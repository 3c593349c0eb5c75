"""What tasks put on a pretrained graph: a rewrite that adds nodes behind its last vectors and keeps only what these
need. Names of the parameters that stay are what they were."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from atinuke.compile.step import can_step
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.graph import Graph, Input, Node, Range, Wire, frozen
from atinuke.core.rewrite import HEAD
from atinuke.pipelines.objective import node, output
from atinuke.pipelines.part import part
from atinuke.pipelines.task import MASK

ADDED = "task_"  # what the names of the nodes begin with
TEXT, VECTORS = "input_ids", "last_hidden_state"
Pool = Literal["first", "last", "mean", "attention", "pooled"]
"""Components `pool.*`; or `pooled`, the output of that name, which some graphs were pretrained with."""


def vectors(checked: CheckedGraph) -> tuple[Wire, int]:
    """The vectors `[batch, sequence, d_model]` of the text `input_ids`, and d_model: the output `last_hidden_state`, or
    else what the head.vocabulary reads that gives `logits`.

    Raises:
        AtinukeError: the graph reads no `input_ids`, has neither, or they are of another shape; or it reads both ways
            and has no input for the mask, so that what fills up a batch would change its answers.
    """
    graph, body = checked.graph, checked.body
    if TEXT not in body.inputs or len(body.inputs[TEXT].shape) != 2:
        what = f"graph `{graph.name}` reads no text: it has no input `{TEXT}` [batch, sequence]"
        raise fail(what, f"its inputs: {', '.join(map(str, graph.inputs))}", where=graph.place("inputs"))
    wire = graph.outputs.get(VECTORS)
    logits = graph.outputs.get("logits")
    if wire is None and logits is not None:
        last = graph.nodes.get(logits.node)
        if last is not None and last.use == HEAD:
            feeds = last.inputs if isinstance(last.inputs, tuple) else tuple(last.inputs.values())
            wire = feeds[0]
    if wire is None:
        fix = f"give the graph an output `{VECTORS}` [batch, sequence, d_model]"
        told = f"its outputs: {', '.join(graph.outputs)}"
        raise fail(f"graph `{graph.name}` gives no vectors of its text", told, where=graph.place("outputs"), fix=fix)
    given = body.type_of(wire)
    if len(given.shape) != 3 or given.shape[:2] != body.inputs[TEXT].shape or not given.shape[2].is_Integer:
        what = f"the vectors of graph `{graph.name}` must be [{', '.join(map(str, body.inputs[TEXT].shape))}, d_model]"
        raise fail(what, f"got {given}", where=graph.place("outputs"))
    if MASK not in body.inputs and not can_step(checked):
        what = f"graph `{graph.name}` has no input `{MASK}`, and reads a text both ways"
        told = "what fills up a batch would change its answers"
        fix = f"give it the input `{MASK}: bool[batch, sequence]`"
        raise fail(what, told, where=graph.place("inputs"), fix=fix)
    return wire, int(given.shape[2])


def mask(checked: CheckedGraph) -> dict[str, Input]:
    """The input `attention_mask`, for a graph that lacks it."""
    shape = checked.graph.inputs[TEXT].shape
    return {} if MASK in checked.graph.inputs else {MASK: Input("bool", shape)}


def pooled(checked: CheckedGraph, pool: Pool, dropout: float) -> tuple[dict[str, Node], Wire, int]:
    """Nodes that make one vector `[batch, d_model]` of a text: the nodes, the wire of the vector, and d_model."""
    wire, d_model = vectors(checked)
    nodes: dict[str, Node] = {}
    if pool == "pooled":
        wire, given = output(checked, pool)
        if len(given.shape) != 2 or not given.shape[1].is_Integer:
            raise fail("output `pooled` must be [batch, d_model]", f"got {given}", where=checked.graph.place("outputs"))
        d_model = int(given.shape[1])
    else:
        settings = {"d_model": d_model} if pool == "attention" else {}
        nodes["task_pool"] = node(f"pool.{pool}", {"x": wire, "mask": Wire(MASK)}, **settings)
        wire = Wire("task_pool")
    if dropout:
        nodes["task_drop"] = node("dropout", {"x": wire}, rate=dropout)
        wire = Wire("task_drop")
    return nodes, wire, d_model


def with_head(
    checked: CheckedGraph,
    nodes: Mapping[str, Node],
    outputs: Mapping[str, Wire],
    inputs: Mapping[str, Any],
    axes: Mapping[str, Range] | None = None,
) -> Graph:
    """The graph with new nodes, inputs and axes, `outputs` as its only ones, and only what these need.

    Names of nodes begin with `task_`: all others must find their weights in the pretrained model.

    Raises:
        AtinukeError: a name is taken.
    """
    graph = checked.graph
    assert all(name.startswith(ADDED) for name in nodes), f"{', '.join(nodes)}: names begin with `{ADDED}`"
    axes = axes or {}
    taken = [name for name in (*nodes, *inputs) if name in graph.nodes or name in graph.inputs]
    taken += [name for name in axes if name in graph.axes or name in graph.dims]
    if taken:
        raise fail(
            f"`{taken[0]}` is a name that the task adds to the graph", where=graph.place("nodes"), fix="rename it"
        )
    wider = replace(
        graph,
        axes=frozen({**graph.axes, **axes}),
        inputs=frozen({**graph.inputs, **inputs}),
        nodes=frozen({**graph.nodes, **nodes}),
        slots=frozen(),
    )
    return part(wider, outputs)
