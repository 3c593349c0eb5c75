"""Writes graph files: `loads(dump(graph)) == graph`, in the layout of the files that ship."""

import re
from collections.abc import Mapping
from typing import Any

from atinuke.core.document import scalar
from atinuke.core.graph import Graph, Input, Node, Wire
from atinuke.core.spec import VERSION


def dump(graph: Graph) -> str:
    """The graph as YAML text, in the layout of the graph files that ship."""
    lines = [f"atinuke: {VERSION}", f"name: {_scalar(graph.name)}"]
    if graph.dims:
        lines.append(f"dims: {_flow(graph.dims)}")
    if graph.axes:
        lines.append(f"axes: {_flow({name: str(axis) for name, axis in graph.axes.items()})}")
    if graph.slots:
        lines.append("slots:")
        lines += [f"  {name}: {_slot(given)}" for name, given in graph.slots.items()]
    lines += _inputs(graph.inputs, "")
    if graph.blocks:
        lines.append("blocks:")
        for name, block in graph.blocks.items():
            lines += [f"  {name}:", *_inputs(block.inputs, "    "), *_nodes(block.nodes, "    ")]
            lines.append(f"    outputs: {_outputs(block.outputs)}")
    lines += _nodes(graph.nodes, "")
    lines.append(f"outputs: {_outputs(graph.outputs)}")
    return "\n".join(lines) + "\n"


def _slot(given: Mapping[str, Input]) -> str:
    if set(given) == {""}:
        return _quoted(str(given[""]))
    return "{" + ", ".join(f"{name}: {_quoted(str(value))}" for name, value in given.items()) + "}"


def _inputs(inputs: Mapping[str, Input], indent: str) -> list[str]:
    if not inputs:
        return [f"{indent}inputs: {{}}"]
    return [f"{indent}inputs:", *(f"{indent}  {name}: {_quoted(str(value))}" for name, value in inputs.items())]


def _nodes(nodes: Mapping[str, Node], indent: str) -> list[str]:
    if not nodes:
        return [f"{indent}nodes: {{}}"]
    return [f"{indent}nodes:", *(f"{indent}  {name}: {_node(node)}" for name, node in nodes.items())]


def _node(node: Node) -> str:
    parts = [f"use: {_scalar(node.use)}"]
    if node.repeat is not None:
        parts.append(f"repeat: {_scalar(node.repeat)}")
    if isinstance(node.inputs, Mapping):
        parts.append(f"in: {_flow({port: str(wire) for port, wire in node.inputs.items()})}")
    elif node.inputs:
        wires = [_scalar(str(wire)) for wire in node.inputs]
        parts.append(f"in: {wires[0] if len(wires) == 1 else '[' + ', '.join(wires) + ']'}")
    if node.settings:
        parts.append(f"with: {_flow(node.settings)}")
    if node.tie:
        parts.append(f"tie: {_flow(node.tie)}")
    if node.lora:
        updates = (f"{_scalar(name)}: {_flow(values)}" for name, values in node.lora.items())
        parts.append("lora: {" + ", ".join(updates) + "}")
    return "{" + ", ".join(parts) + "}"


def _outputs(outputs: Mapping[str, Wire]) -> str:
    if set(outputs) == {""}:
        return _scalar(str(outputs[""]))
    return _flow({name: str(wire) for name, wire in outputs.items()})


def _flow(mapping: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{_scalar(name)}: {_scalar(value)}" for name, value in mapping.items()) + "}"


def _scalar(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z0-9_$][\w.:*/+${}-]*", value) and not re.search(r":$|[{}]", value)
        return value if plain and scalar(value) == value else _quoted(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _quoted(text: str) -> str:
    """A double-quoted scalar; what cannot be seen is escaped."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
