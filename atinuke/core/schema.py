"""The JSON Schema (2020-12) of graph files, with every registered component: for completion and hints in editors.

A schema cannot say what follows from the rest of a file (which nodes and blocks there are, which sizes fit).
"""

import keyword
from collections.abc import Mapping
from typing import Any

from atinuke.core.errors import AtinukeError
from atinuke.core.names import RESERVED
from atinuke.core.registry import Registry
from atinuke.core.signature import DTYPES, Port, Setting, describe, read_signature, setting_schema
from atinuke.core.spec import VERSION

Schema = dict[str, Any]

WORD = "[A-Za-z][A-Za-z0-9_]*"
NUMBERS = ("integer", "number", "boolean")


def _any(*choices: Schema) -> Schema:
    return {"anyOf": list(choices)}


def _text(pattern: str, description: str) -> Schema:
    return {"type": "string", "pattern": f"^{pattern}$", "description": description}


REFERENCE = _text(rf"\$({WORD}|\{{.+\}})", "$name or ${expression}, in the dims and `index`")


def json_schema(registry: Registry) -> Schema:
    """The schema of graph files that use what comes with Atinuke, or an installed plugin.

    A component that cannot be loaded may be named, with the reason beside it; what its node holds is not looked into.
    """
    uses: list[Schema] = [{"type": "string", "pattern": f"^{WORD}$", "description": "A block of this file"}]
    known: dict[str, Schema] = {}
    for plugin in ("", *registry.plugins()):
        try:
            components = registry.components(plugin)
        except AtinukeError as error:
            uses.append({"type": "string", "pattern": f"^{plugin}:", "description": str(error)})
            continue
        for name, component in components.items():
            use = {"const": name, "description": component.summary}
            try:
                known[f"component:{name}"] = _component(registry.load(name))
            except AtinukeError as error:
                use["description"] += f" (cannot be loaded: {error})"
            uses.append(use)
    choices = [{"if": _uses(key.partition(":")[2]), "then": {"$ref": f"#/$defs/{key}"}} for key in known]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Atinuke graph",
        **_object(
            {
                "atinuke": {"const": VERSION, "description": "The version of the format"},
                "name": {"type": "string", "pattern": r"^[A-Za-z][\w.-]*$"},
                "dims": _named(_any({"type": ["integer", "number", "boolean"]}, {"$ref": "#/$defs/expression"})),
                "axes": _named(
                    _any({"type": "integer", "minimum": 1}, _text(r"[0-9]{1,15}\.\.[0-9]{1,15}", "low..high"))
                ),
                "slots": _named(_any({"$ref": "#/$defs/type"}, _named({"$ref": "#/$defs/type"}))),
                "inputs": {"$ref": "#/$defs/inputs"},
                "blocks": _named({"$ref": "#/$defs/block"}),
                "nodes": {"$ref": "#/$defs/nodes"},
                "outputs": {"$ref": "#/$defs/outputs"},
            },
            required=["atinuke", "outputs"],
        ),
        "$defs": {
            "expression": {"type": "string", "maxLength": 200, "description": "An expression, such as 4*d_model"},
            "reference": REFERENCE,
            "wire": _text(rf"{WORD}(\.{WORD})?", "A node or input, or an output of a node: norm, experts.balance_loss"),
            "type": _text(rf"\s*({'|'.join(sorted(DTYPES))})\s*\[.*\]\s*\??\s*", "int64[batch, sequence]"),
            "inputs": _named({"$ref": "#/$defs/type"}),
            "nodes": _named({"$ref": "#/$defs/node"}),
            "outputs": {**_named({"$ref": "#/$defs/wire"}), "type": "object", "minProperties": 1},
            "block": _object(
                {
                    "inputs": {"$ref": "#/$defs/inputs"},
                    "nodes": {"$ref": "#/$defs/nodes"},
                    "outputs": _any({"$ref": "#/$defs/wire"}, {"$ref": "#/$defs/outputs"}),
                },
                required=["outputs"],
            ),
            "node": {**_node(uses), "allOf": choices},
            **known,
        },
    }


def _node(uses: list[Schema]) -> Schema:
    """What any node may hold; `choices` say more about those that use a component."""
    wire = {"$ref": "#/$defs/wire"}
    plain = {"type": ["integer", "number", "boolean", "string", "null", "array"]}
    parameter = _text(rf"{WORD}(\.[A-Za-z0-9_]+)+", "A parameter of a node above: E.weight")
    return _object(
        {
            "use": {"anyOf": uses},
            "in": _any(
                wire, {"type": "array", "items": wire}, {"type": ["object", "null"], "additionalProperties": wire}
            ),
            "with": {"type": ["object", "null"], "additionalProperties": plain},
            "repeat": _any({"type": ["integer", "null"]}, {"$ref": "#/$defs/reference"}),
            "tie": {"type": ["object", "null"], "additionalProperties": parameter},
            "lora": {"type": ["object", "null"], "additionalProperties": _lora()},
        },
        required=["use"],
    )


def _lora() -> Schema:
    """A low-rank update of a linear map."""
    reference = {"$ref": "#/$defs/reference"}
    parts = {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "Parts that are updated"}
    numbers = {
        "rank": _any({"type": "integer", "minimum": 1}, reference),
        "alpha": _any({"type": "number", "exclusiveMinimum": 0}, reference),
        "dropout": _any({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, reference),
    }
    return {**_object({**numbers, "parts": parts}, ["rank"]), "description": "A low-rank update of a linear map"}


def _uses(name: str) -> Schema:
    return {"properties": {"use": {"const": name}}, "required": ["use"]}


def _component(cls: type) -> Schema:
    """What the node of a component may hold: its ports, its settings, and no `repeat`."""
    signature = read_signature(cls)
    settings = {name: _setting(setting) for name, setting in signature.settings.items()}
    required = [name for name, setting in signature.settings.items() if setting.required]
    given = _object(settings, required)
    ports = list(signature.inputs.values())
    fed = any(not port.optional for port in ports)
    return {
        "properties": {
            "in": _feed(ports),
            "with": given if required else _any(given, {"type": "null"}),
            "repeat": {"type": "null", "description": "Only a block can be repeated"},
        },
        "required": [*(["in"] if fed else []), *(["with"] if required else [])],
    }


def _feed(ports: list[Port]) -> Schema:
    """The wires of a component: one, several in the order of its ports, or by port."""
    wire = {"$ref": "#/$defs/wire"}
    least = max((at for at, port in enumerate(ports, 1) if not port.optional), default=0)
    listed: Schema = {"type": "array", "items": wire, "minItems": least}
    if not any(port.many for port in ports):
        listed["maxItems"] = len(ports)
    named = _object({port.name: {**wire, "description": _port(port)} for port in ports}, _required(ports))
    choices = [listed, named]
    choices += [wire] if ports and least <= 1 else []
    choices += [] if least else [{"type": "null"}]
    return {**_any(*choices), "description": "; ".join(map(_port, ports)) or "takes no wires"}


def _required(ports: list[Port]) -> list[str]:
    return [port.name for port in ports if not port.optional]


def _port(port: Port) -> str:
    """`x: float[batch sequence d_model]`, with `?` for an optional port and `...` for one that takes many wires."""
    mark = "?" if port.optional else "..." if port.many else ""
    return f"{port.name}{mark}: {describe(port.kinds)}[{port.shape}]"


def _setting(setting: Setting) -> Schema:
    schema = _or_reference(setting_schema(setting))
    return schema if setting.required else {**schema, "default": setting.default}


def _or_reference(schema: Schema) -> Schema:
    """Lets `$name` and `${expression}` stand wherever the schema of a setting expects a number."""
    if schema.get("type") in NUMBERS:
        return _any(schema, {"$ref": "#/$defs/reference"})
    changed = dict(schema)
    if "anyOf" in schema:
        parts = [_or_reference(part) for part in schema["anyOf"]]
        flat = [choice for part in parts for choice in part.get("anyOf", [part])]
        changed["anyOf"] = [choice for at, choice in enumerate(flat) if choice not in flat[:at]]
    if "prefixItems" in schema:
        changed["prefixItems"] = [_or_reference(part) for part in schema["prefixItems"]]
    if isinstance(schema.get("items"), Mapping):
        changed["items"] = _or_reference(schema["items"])
    return changed


def _object(properties: Mapping[str, Schema], required: list[str]) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _named(values: Schema) -> Schema:
    """Things by name; an empty mapping may be left out in YAML."""
    taken = sorted(RESERVED | set(keyword.kwlist))
    names = {"pattern": f"^{WORD}$", "not": {"enum": taken}}
    return {"type": ["object", "null"], "propertyNames": names, "additionalProperties": values}
