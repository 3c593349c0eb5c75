"""The graph that a config.json asks for, and the tensors that it has."""

import json
from dataclasses import replace

import torch
from torch import nn

from atinuke import graphs
from atinuke.compile.front import check_graph
from atinuke.compile.module import build
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.graph import Graph, Range, Wire, frozen
from atinuke.core.names import close
from atinuke.core.override import override
from atinuke.core.spec import VERSION, load, loads
from atinuke.core.swap import find_node
from atinuke.pipelines.part import part
from atinuke.pipelines.pretrained.config import Meaning
from atinuke.pipelines.pretrained.family import Family
from atinuke.pipelines.pretrained.moves import Weights


def graph_of(family: Family, architecture: str, meaning: Meaning) -> CheckedGraph:
    """The family's graph with the dims, axes and components of a config.json, as far as the architecture has it.

    Raises:
        AtinukeError: the family names what its graph does not have, or the graph does not hold at these sizes.
    """
    graph = _with_own(load(graphs.path(family.graph)), family, architecture, meaning)
    wanted = {name: _wire(text) for name, text in family.architectures[architecture].outputs.items()}
    for what, named, there in (
        ("dim", meaning.dims, graph.dims),
        ("axis", meaning.axes, graph.axes),
        ("node", [wire.node for wire in wanted.values()], graph.nodes),
    ):
        for name in named:
            if name not in there:
                text = f"family `{family.name}` names the {what} `{name}`, which its graph does not have"
                raise fail(text, where=family.graph, fix=close(name, there))
    axes = {name: _range(graph.axes[name], *ends) for name, ends in meaning.axes.items()}
    graph = replace(graph, dims=frozen({**graph.dims, **meaning.dims}), axes=frozen({**graph.axes, **axes}))
    for effect in meaning.effects:
        graph = override(graph, swaps=[f"{node}={use}" for node, use in effect.swap.items()])
        for path, target in effect.tie.items():
            graph = _tied(graph, path, target)
    return check_graph(part(graph, wanted))


def weights_of(checked: CheckedGraph) -> Weights:
    """The names and shapes of a graph's tensors."""
    model = build(checked, device="meta")
    firsts: dict[int, str] = {}
    shapes: tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]] = ({}, {})
    tied: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in firsts:
            tied[name] = firsts[id(tensor)]
        else:
            firsts[id(tensor)] = name
            shapes[not isinstance(tensor, nn.Parameter)][name] = tuple(tensor.shape)
    return Weights(*shapes, tied)


def fresh(checked: CheckedGraph, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """What a new model has under these names: buffers that follow from settings."""
    return {name: tensor for name, tensor in build(checked).state_dict().items() if name in names} if names else {}


def _range(given: Range, *ends: int) -> Range:
    """An axis with another end, or two."""
    return Range(ends[0] if ends[1:] else min(given.low, ends[-1]), ends[-1])


def _with_own(graph: Graph, family: Family, architecture: str, meaning: Meaning) -> Graph:
    """The graph with the dims and nodes that only this architecture has."""
    own = family.architectures[architecture]
    said = {"atinuke": VERSION, "nodes": own.nodes, "outputs": own.outputs}
    nodes = loads(json.dumps(said), f"family `{family.name}`, {architecture}").nodes
    for name in (*own.dims, *nodes):
        if name in graph.dims or name in graph.nodes:
            raise fail(f"`{name}` of {architecture} is in the graph already", where=family.graph, fix="rename it")
    dims = {name: meaning.dims[name] for name in own.dims}
    return replace(graph, dims=frozen({**graph.dims, **dims}), nodes=frozen({**graph.nodes, **nodes}))


def _wire(text: str) -> Wire:
    node, _, output = text.partition(".")
    return Wire(node, output or None)


def _tied(graph: Graph, path: str, target: str | None) -> Graph:
    """The graph with a parameter (`O.weight`) tied to another, or to none."""
    node, _, parameter = path.rpartition(".")
    block, name = find_node(graph, node)
    found = graph.body(block).nodes[name]
    ties = {key: value for key, value in found.tie.items() if key != parameter}
    if target is not None:
        ties[parameter] = target
    return graph.with_node(name, replace(found, tie=frozen(ties)), block)
