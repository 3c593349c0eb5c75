"""A model whose low-rank updates have become part of its weights: the graph as it was before them."""

from dataclasses import replace

import torch
from torch import nn

from atinuke.compile.front import check_graph
from atinuke.compile.lora import LoRALinear
from atinuke.compile.module import build
from atinuke.core.checked import CheckedGraph
from atinuke.core.graph import Graph, Node, frozen


def without_lora(graph: Graph) -> Graph:
    """The graph with no node's `lora`."""

    def plain(nodes: dict[str, Node]) -> dict[str, Node]:
        return {name: replace(node, lora=frozen()) for name, node in nodes.items()}

    for block in (None, *graph.blocks):
        graph = graph.with_nodes(plain(dict(graph.body(block).nodes)), block)
    return graph


@torch.no_grad()
def merged(checked: CheckedGraph, model: nn.Module) -> tuple[CheckedGraph, nn.Module]:
    """The graph without low-rank updates and its module, which gives the same; `model`, built of `checked`, is left as
    it is. A graph without updates comes back with its own module."""
    updated = {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}
    if not updated:
        return checked, model
    first = next(model.parameters())
    plain = check_graph(without_lora(checked.graph))
    result = build(plain, first.dtype, first.device).train(model.training)
    weights = {f"{name}.weight": module.merged_weight() for name, module in updated.items()}
    theirs = {**model.state_dict(), **weights}
    result.load_state_dict({name: theirs[name] for name in result.state_dict()})
    return plain, result
