"""The JSON Schema against an independent validator and against the loader itself."""

import json
import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke import graphs
from atinuke.compile.front import check_graph
from atinuke.core.component import Component
from atinuke.core.document import parse
from atinuke.core.dump import dump
from atinuke.core.errors import AtinukeError
from atinuke.core.graph import Graph
from atinuke.core.hookspecs import hookimpl
from atinuke.core.registry import Registry
from atinuke.core.schema import REFERENCE, _setting, json_schema
from atinuke.core.signature import Setting, read_signature, setting_schema
from atinuke.core.spec import loads
from tests.core.graphs import graphs as drawn

GOOD = """\
atinuke: 1
name: good
dims: {d: 8, heads: 2, wide: true, rate: 1e-1, layers: 3, f: 4*d}
axes: {batch: 1..4, sequence: 7}
inputs:
  x: float[batch, sequence, d]
  mask: bool[batch, sequence]?
blocks:
  layer:
    inputs: {x: "float[batch, sequence, d]"}
    nodes:
      H: {use: attention.self, in: x, with: {d_model: $d, heads: "${heads*1}", dropout: $rate, window: null}}
      F: {use: feedforward.experts, in: [H], with: {d_model: 8, d_ff: $f, experts: 4}}
    outputs: {x: F, loss: F.balance_loss}
nodes:
  stack: {use: layer, repeat: $layers, in: x, with: {d: 8}}
  H: {use: attention.self, in: {x: stack, attention_mask: mask}, with: {d_model: $d, heads: 2, dropout: 0}}
  a: {use: add, in: [stack, H, x]}
  up: {use: feedforward.gelu, in: a, with: {d_model: $d, d_ff: 4, bias: $wide, approximate: tanh}}
  slopes: {use: position.alibi, with: {heads: 2}}
outputs: {y: up, losses: stack.loss, slopes: slopes}
"""


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema(Registry([]))


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(json.dumps(schema)))


def read(text: str) -> Any:
    document = parse(text)
    assert not document.mistakes
    return document.data


def test_it_is_a_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", graphs.names())
def test_every_shipped_graph_is_valid(validator: jsonschema.Draft202012Validator, name: str) -> None:
    validator.validate(read(graphs.path(name).read_text()))


def test_everything_that_a_graph_can_say_is_valid(validator: jsonschema.Draft202012Validator) -> None:
    check_graph(loads(GOOD))
    validator.validate(read(GOOD))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("atinuke: 1\n", ""),
        ("atinuke: 1", "atinuke: 2"),
        ("name: good", "nome: good"),
        ("name: good", "name: a b"),
        ("d: 8,", "d: [8],"),
        ("d: 8,", "forward: 8,"),
        ("d: 8,", "8d: 8,"),
        ("1..4", "1-4"),
        ("sequence: 7", "sequence: 0"),
        ("float[batch", "flaot[batch"),
        ("bool[batch, sequence]?", "bool(batch, sequence)"),
        ("    outputs: {x: F", "    output: {x: F"),
        ("{y: up, losses: stack.loss, slopes: slopes}", "{}"),
        ("{y: up,", "{y: [up],"),
        ("use: attention.self, in: x,", "use: attention.slef, in: x,"),
        ("use: add,", "uses: add,"),
        ("use: add, in: [stack, H, x]", "use: add, in: []"),
        ("use: add, in: [stack, H, x]", "use: add"),
        ("use: add, in: [stack, H, x]", "use: add, in: [stack, H, 3]"),
        ("use: add, in: [stack, H, x]", "use: add, in: [stack], repeat: 2"),
        ("use: add, in: [stack, H, x]", "use: add, in: [stack], with: {d: 2}"),
        ("use: add,", "use: other:add,"),
        ("{x: stack, attention_mask: mask}", "{x: stack, mask: mask}"),
        ("{x: stack, attention_mask: mask}", "{attention_mask: mask}"),
        ("{x: stack, attention_mask: mask}", "[stack, mask, x, x, x]"),
        ("in: [H], with", "in: [H, H], with"),
        ("use: position.alibi,", "use: position.alibi, in: x,"),
        ("{use: position.alibi, with: {heads: 2}}", "{use: position.alibi}"),
        ("with: {heads: 2}", "with: {heads: two}"),
        ("with: {heads: 2}", "with: {heads: 2.5}"),
        ("with: {heads: 2}", "with: {heads: true}"),
        ("with: {heads: 2}", "with: {heads: [2]}"),
        ("with: {heads: 2}", "with: {heads: null}"),
        ("with: {heads: 2}", "with: {heads: $2}"),
        ("with: {heads: 2}", "with: {heads: '${2'}"),
        ("with: {heads: 2}", "with: {}"),
        ("with: {heads: 2}", "with: {heads: 2, width: 2}"),
        ("approximate: tanh", "approximate: tan"),
        ("dropout: 0}", "dropout: none}"),
        ("repeat: $layers", "repeat: 2.5"),
        ("repeat: $layers", "repeat: layers"),
    ],
)
def test_what_the_language_refuses_is_not_valid(validator: jsonschema.Draft202012Validator, old: str, new: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    assert not validator.is_valid(read(text))
    with pytest.raises(AtinukeError):
        check_graph(loads(text), Registry([]))


@pytest.fixture(scope="module")
def loose(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """The schema but for what it says about components."""
    copy = json.loads(json.dumps(schema))
    copy["$defs"]["node"] |= {"allOf": []}
    copy["$defs"]["node"]["properties"]["use"] = {"type": "string"}
    return jsonschema.Draft202012Validator(copy)


@settings(max_examples=30, deadline=None)
@given(drawn().filter(lambda graph: graph.outputs and all(block.outputs for block in graph.blocks.values())))
def test_every_graph_that_can_be_written_is_valid(loose: jsonschema.Draft202012Validator, graph: Graph) -> None:
    loose.validate(read(dump(graph)))


@given(st.data())
def test_components_are_described_as_the_checker_knows_them(schema: dict[str, Any], data: st.DataObject) -> None:
    registry = Registry([])
    name, component = data.draw(st.sampled_from(sorted(registry.components().items())))
    node = schema["$defs"]["node"]
    assert {"const": name, "description": component.summary} in node["properties"]["use"]["anyOf"]
    signature = read_signature(registry.load(name))
    known = schema["$defs"][f"component:{name}"]
    given_ = known["properties"]["with"]
    given_ = given_.get("anyOf", [given_])[0]
    assert given_["properties"].keys() == signature.settings.keys()
    for key, setting in signature.settings.items():
        assert given_["properties"][key].get("default", "none") == ("none" if setting.required else setting.default)
        assert (key in given_["required"]) == setting.required
    named = next(choice for choice in known["properties"]["in"]["anyOf"] if "properties" in choice)
    assert named["properties"].keys() == signature.inputs.keys()
    assert named["required"] == [port.name for port in signature.inputs.values() if not port.optional]


@pytest.mark.parametrize(
    "annotation", [int, float, bool, int | None, list[int], list[float | None], tuple[int, float], list[list[int]]]
)
def test_references_stand_wherever_a_number_does(annotation: Any) -> None:
    shown = {**_setting(Setting("s", annotation, 0)), "$defs": {"reference": REFERENCE}}
    plain = setting_schema(Setting("s", annotation, 0))
    values: list[Any] = [1, 2.5, True, None, [1], [1, 2.5], [[1]], [None, 1]]
    for value in values:
        assert jsonschema.Draft202012Validator(shown).is_valid(value) == jsonschema.Draft202012Validator(
            plain
        ).is_valid(value)
        if jsonschema.Draft202012Validator(plain).is_valid(value):
            text = json.dumps(value).replace("2.5", '"${d/2}"').replace("1", '"$d"').replace("true", '"$wide"')
            assert jsonschema.Draft202012Validator(shown).is_valid(json.loads(text)), text
    assert not jsonschema.Draft202012Validator(shown).is_valid("d")


# Plugins


def plugin(monkeypatch: pytest.MonkeyPatch, name: str, *components: Component) -> EntryPoint:
    module = ModuleType(f"plugin_{name}")

    @hookimpl
    def atinuke_components() -> tuple[Component, ...]:
        return components

    module.atinuke_components = atinuke_components  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return EntryPoint(name, module.__name__, "atinuke")


def test_plugins_are_in_it_and_broken_ones_hurt_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Component("text.twin", "atinuke.plugins.text:TextEmbedding", "Like text.embedding")
    bad = Component("text.lost", "atinuke.plugins.text:Lost", "Not there")
    entries = [plugin(monkeypatch, "mine", good, bad), EntryPoint("broken", "no_such_module", "atinuke")]
    schema = json_schema(Registry(entries))
    validator = jsonschema.Draft202012Validator(schema)

    def valid(node: str) -> bool:
        return validator.is_valid(
            read(f"atinuke: 1\ninputs: {{x: 'int64[2]'}}\nnodes: {{y: {node}}}\noutputs: {{y: y}}\n")
        )

    assert valid("{use: mine:text.twin, in: x, with: {vocab_size: 3, d_model: 2}}")
    assert not valid("{use: mine:text.twin, in: x, with: {vocab_size: 3}}")
    assert not valid("{use: mine:text.other, in: x}")
    assert valid("{use: mine:text.lost, in: x, with: {anything: 3}}")
    assert valid("{use: broken:text.embedding, in: x, with: {anything: 3}}")
    assert not valid("{use: missing:text.embedding, in: x}")
    uses = {
        use.get("const", use.get("pattern")): use["description"]
        for use in schema["$defs"]["node"]["properties"]["use"]["anyOf"]
    }
    assert "cannot be imported" in uses["^broken:"]
    assert uses["mine:text.lost"].startswith("Not there (cannot be loaded: ")
