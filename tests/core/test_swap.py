"""One node exchanged for another: what is kept, what the graph then reads, and what a slot promises."""

import pytest

from atinuke.compile.front import check_graph
from atinuke.compile.module import build
from atinuke.core.dump import dump
from atinuke.core.errors import AtinukeError
from atinuke.core.graph import Graph
from atinuke.core.override import override
from atinuke.core.spec import loads

SENSES = """
atinuke: 1
name: senses
dims: {vocab_size: 32, d_model: 8, mels: 4}
axes: {batch: 1..8, sequence: 1..16, frames: 1..64}
slots:
  sense: float[batch, length, d_model]
inputs:
  input_ids: int64[batch, sequence]
blocks:
  sound:
    inputs: {input_features: "float[batch, frames, mels]", frame_mask: "bool[batch, frames]?"}
    nodes:
      up: {use: head.vocabulary, in: input_features, with: {d_model: $mels, vocab_size: $d_model}}
      H:
        use: attention.self
        in: {x: up, attention_mask: frame_mask}
        with: {d_model: $d_model, heads: 2, causal: false}
    outputs: {output: H, raw: input_features}
nodes:
  sense: {use: text.embedding, in: input_ids, with: {vocab_size: $vocab_size, d_model: $d_model}}
  norm: {use: norm.layer, in: sense, with: {d_model: $d_model}}
outputs: {y: norm}
"""


def swapped(*swaps: str, text: str = SENSES) -> Graph:
    return override(loads(text, "f.yaml"), swaps=swaps)


def mistake(graph: Graph) -> str:
    with pytest.raises(AtinukeError) as caught:
        check_graph(graph)
    (found,) = caught.value.mistakes
    return str(found)


def test_what_is_swapped_in_for_a_sense_brings_its_inputs() -> None:
    assert list(loads(SENSES).inputs) == ["input_ids"]
    heard = swapped("sense=sound")
    assert {name: str(given) for name, given in heard.inputs.items()} == {
        "input_features": "float[batch, frames, mels]",
        "frame_mask": "bool[batch, frames]?",
    }
    checked = check_graph(heard)
    assert str(checked.body.outputs["y"]) == "float[batch, frames, 8]"
    assert loads(dump(heard)) == heard
    module = build(checked)
    assert "input_ids" not in module.forward.__code__.co_varnames
    assert {name.split(".")[0] for name in module.state_dict()} == {"sense", "norm"}


def test_an_input_that_another_node_reads_stays() -> None:
    text = SENSES.replace("outputs: {y: norm}", "outputs: {y: norm, ids: input_ids}")
    assert list(swapped("sense=sound", text=text).inputs) == ["input_ids", "input_features", "frame_mask"]


def test_an_input_of_the_ports_name_is_taken() -> None:
    text = SENSES.replace("inputs:\n", "inputs:\n  input_features: float[batch, 6, mels]\n", 1)
    text = text.replace("outputs: {y: norm}", "outputs: {y: norm, f: input_features}")
    graph = swapped("sense=sound", text=text)
    assert str(graph.inputs["input_features"]) == "float[batch, 6, mels]"
    assert str(graph.nodes["sense"].inputs["input_features"]) == "input_features"  # type: ignore[call-overload]


def test_a_components_ports_become_inputs() -> None:
    graph = swapped("sense=attention.self(heads=2, causal=false)")
    assert {name: str(given) for name, given in graph.inputs.items()} == {
        "x": "float[batch, sequence, d_model]",
        "attention_mask": "bool[batch, sequence]?",
        "rotation": "float[batch, sequence, d_model//2]?",
        "slopes": "float[2]?",
    }
    assert check_graph(graph)


def test_the_port_of_any_number_of_axes_must_be_declared() -> None:
    with pytest.raises(AtinukeError) as caught:
        swapped("sense=sound", "sense=text.embedding")
    assert str(caught.value) == (
        "--swap sense=text.embedding  port `input_ids` takes tensors of any number of axes, and the graph has no input"
        " of that name\n  its inputs: `input_features`, `frame_mask`\n  to fix: declare `input_ids` under inputs"
    )


def test_inside_a_graph_wires_are_kept() -> None:
    graph = swapped("norm=norm.rms", "sense=sound")
    assert graph.nodes["norm"].inputs == loads(SENSES).nodes["norm"].inputs
    assert check_graph(graph)


@pytest.mark.parametrize(
    ("slot", "message"),
    [
        (
            "float[batch, length, 2*d_model]",
            "node `sense` does not fill its slot\n  axis 2 must be 2*d_model = 16, but is 8\n"
            "  given float[batch, sequence, 8]\n  by text.embedding\n",
        ),
        ("int64[batch, length, d_model]", "node `sense` does not fill its slot\n  must be int64, but is float\n"),
        (
            '{output: "float[batch, length, d_model]", mask: "bool[batch, length]"}',
            "node `sense` does not fill its slot\n  it gives no `mask`\n",
        ),
        ("float[batch, length", "slot `sense` must look like int64[batch, sequence]\n"),
        ("{}", "slot `sense` says nothing\n"),
        ('{output: "flot[batch]"}', "output `output` has the unknown dtype `flot`\n  to fix: use `float`"),
    ],
)
def test_what_does_not_fill_its_slot_is_told(slot: str, message: str) -> None:
    text = SENSES.replace("sense: float[batch, length, d_model]", f"sense: {slot}")
    with pytest.raises(AtinukeError) as caught:
        check_graph(loads(text, "f.yaml"))
    (found,) = caught.value.mistakes
    assert str(found).startswith(f"f.yaml:7  {message}")


def test_names_in_a_slot_stand_for_one_size() -> None:
    slot = '{output: "float[batch, length, d_model]", raw: "float[batch, length, mels]"}'
    text = SENSES.replace("sense: float[batch, length, d_model]", f"sense: {slot}")
    assert check_graph(swapped("sense=sound", text=text))
    apart = text.replace("batch, length, mels", "length, batch, mels")
    assert "`raw`\n  axis 0 must be length = frames, but is batch" in mistake(swapped("sense=sound", text=apart))


def test_a_slot_is_of_a_node() -> None:
    found = mistake(loads(SENSES.replace("  sense: float", "  sens: float")))
    assert "slot `sens` is of no node\n  to fix: use `sense`" in found


def test_without_a_slot_a_block_must_be_used() -> None:
    text = SENSES.replace("slots:\n  sense: float[batch, length, d_model]\n", "")
    assert "block `sound` is not used" in mistake(loads(text))
