"""Another component or block for a node: `--swap layer.P=identity`, `--swap sense=vision.patches`."""

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from atinuke.core.errors import AtinukeError, fail
from atinuke.core.fit import dtype_of
from atinuke.core.graph import Block, Graph, Input, Node, Wire, frozen
from atinuke.core.names import close
from atinuke.core.registry import Registry
from atinuke.core.signature import Port, Setting, Signature, read_signature
from atinuke.core.spec import reference

Ports = Mapping[str, Port | Input]


def swap(graph: Graph, target: str, use: str, given: Mapping[str, Any], registry: Registry) -> Graph:
    """The graph with `use` (a component, or one of its blocks) at the node `target` (`E`, or `layer.P` inside a block).

    Kept are the wires to ports that the new one has too, and settings that it has too; a setting that it requires, and
    that a dim is named after, takes that dim. Where the node reads nothing but inputs of the graph, the new one does
    too: each of its ports takes the input of its name, which the graph is given where it has none yet, and inputs that
    nothing reads any more are left out.

    Raises:
        AtinukeError: there is no such node or component.
    """
    block, name = find_node(graph, target)
    node = graph.body(block).nodes[name]
    if use in graph.blocks:
        new = replace(node, use=use, settings=frozen(given), tie=frozen(), lora=frozen())
        ports: Ports = graph.blocks[use].inputs
    else:
        signature = read_signature(registry.load(use))
        settings = _settings(node, signature, given, graph.dims)
        new = replace(node, use=use, settings=settings, tie=frozen(), lora=frozen())
        ports = signature.inputs
    if block is None and not node.repeat and _reads_inputs(node, graph.body(None)):
        return _sense(graph, name, new, ports, _ports(graph, node, registry), _defaults(use, graph, registry))
    return graph.with_node(name, replace(new, inputs=_kept(node, ports)), block)


def find_node(graph: Graph, target: str) -> tuple[str | None, str]:
    """The block (None at the top) and name of a node.

    Raises:
        AtinukeError: there is no such node.
    """
    block, _, name = target.rpartition(".")
    if block and block not in graph.blocks:
        raise fail(f"the graph has no block `{block}`", fix=close(block, graph.blocks))
    nodes = graph.body(block or None).nodes
    if name in nodes:
        return block or None, name
    inside = [f"{b}.{name}" for b, body in graph.blocks.items() if name in body.nodes]
    raise fail(f"the graph has no node `{target}`", fix=close(target, inside or nodes))


def _settings(node: Node, signature: Signature, given: Mapping[str, Any], dims: Mapping[str, Any]) -> Mapping[str, Any]:
    kept = {name: value for name, value in node.settings.items() if name in signature.settings}
    named = {name: f"${name}" for name, setting in signature.settings.items() if setting.required and name in dims}
    return frozen({**named, **kept, **given})


def _kept(node: Node, ports: Ports) -> Mapping[str, Wire] | tuple[Wire, ...]:
    """The wires of a node inside a graph: by port where the new one has that port, else in their order."""
    if not isinstance(node.inputs, Mapping):
        return node.inputs
    kept = {port: wire for port, wire in node.inputs.items() if port in ports}
    return frozen(kept) if kept else tuple(node.inputs.values())[: len(ports)]


def _wires(node: Node) -> tuple[Wire, ...]:
    return tuple(node.inputs.values()) if isinstance(node.inputs, Mapping) else node.inputs


def _reads_inputs(node: Node, body: Block) -> bool:
    return all(wire.node in body.inputs for wire in _wires(node))


def _sense(
    graph: Graph, name: str, new: Node, ports: Ports, before: list[str], defaults: Mapping[str, Setting]
) -> Graph:
    """The graph with a node that reads what comes from outside."""
    node = graph.nodes[name]
    fed = dict(node.inputs) if isinstance(node.inputs, Mapping) else dict(zip(before, node.inputs, strict=False))
    inputs = dict(graph.inputs)
    wires: dict[str, Wire] = {}
    for port, what in ports.items():
        if port in fed:
            wires[port] = fed[port]
            continue
        if port not in inputs:
            inputs[port] = what if isinstance(what, Input) else _input(what, new.settings, defaults, inputs)
        wires[port] = Wire(port)
    changed = graph.with_node(name, replace(new, inputs=frozen(wires)))
    dropped = {wire.node for wire in _wires(node)} - {
        wire.node for other in changed.nodes.values() for wire in _wires(other)
    }
    dropped -= {wire.node for wire in graph.outputs.values()}
    return replace(changed, inputs=frozen({name: given for name, given in inputs.items() if name not in dropped}))


def _ports(graph: Graph, node: Node, registry: Registry) -> list[str]:
    """The names of the ports of what is swapped out, in their order; none where it cannot be read."""
    if node.use in graph.blocks:
        return list(graph.blocks[node.use].inputs)
    try:
        return list(read_signature(registry.load(node.use)).inputs)
    except AtinukeError:  # the checker says so
        return []


def _defaults(use: str, graph: Graph, registry: Registry) -> Mapping[str, Setting]:
    return {} if use in graph.blocks else read_signature(registry.load(use)).settings


def _input(
    port: Port, settings: Mapping[str, Any], defaults: Mapping[str, Setting], inputs: Mapping[str, Input]
) -> Input:
    """An input of the graph for a port; its names are the axes of the graph."""
    if port.shape.lead is not None or port.many:
        known = ", ".join(f"`{name}`" for name in inputs)
        raise fail(
            f"port `{port.name}` takes tensors of any number of axes, and the graph has no input of that name",
            f"its inputs: {known}",
            fix=f"declare `{port.name}` under inputs",
        )

    def value(match: re.Match[str]) -> str:
        given = settings.get(match[1], defaults[match[1]].default)
        text = str(reference(given) if isinstance(given, str) else given)
        return text if text.isidentifier() or text.isdigit() else f"({text})"

    sizes = tuple(re.sub(r"\bself_(\w+)", value, ast.unparse(dim.tree).replace(" ", "")) for dim in port.shape.dims)
    return Input(dtype_of(port.kinds), sizes, port.optional)
