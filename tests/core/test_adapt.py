"""Adaptation as rewrites: what a pattern finds, what is put there, and that a model begins as it was."""

import pytest
import torch

from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.meta import MetaProbe
from atinuke.compile.module import build
from atinuke.core.adapt import add_adapters, add_lora, add_prefix
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import AtinukeError
from atinuke.core.graph import Graph

SETS = ["vocab_size=64", "d_model=16", "heads=2", "layers=2"]
IDS = torch.arange(12).reshape(2, 6)


@pytest.fixture(scope="module")
def gpt2() -> CheckedGraph:
    return open_graph("gpt2", SETS)


def lora(checked: CheckedGraph, *on: str, parts: tuple[str, ...] = ()) -> Graph:
    return add_lora(checked, on, {"rank": 2, "alpha": 4.0}, parts, MetaProbe(), "adapt.lora")


def test_every_layer_gets_what_a_pattern_names(gpt2: CheckedGraph) -> None:
    node = lora(gpt2, "stack.*.H.*", parts=("q", "v")).blocks["layer"].nodes["H"]
    assert {name: dict(values) for name, values in node.lora.items()} == {
        "qkv": {"rank": 2, "alpha": 4.0, "parts": ("q", "v")},
        "output": {"rank": 2, "alpha": 4.0},
    }


def test_what_is_put_in_changes_nothing_at_first(gpt2: CheckedGraph) -> None:
    before = build(gpt2).eval()
    graph = add_adapters(gpt2, ["stack.*.H", "stack.*.F"], 4, "adapt.adapters.after")
    nodes = graph.blocks["layer"].nodes
    assert [str(wire) for wire in nodes["H_adapter"].inputs] == ["H"]
    assert [str(wire) for wire in nodes["drop1"].inputs] == ["H_adapter"]
    assert [str(wire) for wire in nodes["drop2"].inputs] == ["F_adapter"]
    after = build(check_graph(graph)).eval()
    missing, unexpected = after.load_state_dict(before.state_dict(), strict=False)
    assert not unexpected
    assert all("_adapter." in name for name in missing)
    assert len(missing) == 16
    assert torch.equal(after(IDS).logits, before(IDS).logits)
    torch.nn.init.normal_(after.stack[1].F_adapter.up.weight)  # type: ignore[index, union-attr]
    assert (after(IDS).logits - before(IDS).logits).abs().max() > 1e-4


def test_a_block_ends_in_its_adapter() -> None:
    checked = open_graph("gpt2", SETS)
    graph = add_adapters(checked, ["stack.*.add2", "norm"], 4, "after")
    assert str(graph.blocks["layer"].outputs[""]) == "add2_adapter"
    assert [str(wire) for wire in graph.nodes["O"].inputs] == ["norm_adapter"]
    check_graph(graph)


def test_a_learned_prefix_is_seen_from_everywhere(gpt2: CheckedGraph) -> None:
    checked = check_graph(add_prefix(gpt2, ["stack.*.H"], 3, "adapt.prefix.on"))
    model = build(checked).eval()
    assert model.stack[0].H.prefix_key.shape == (2, 3, 8)  # type: ignore[index, union-attr]
    before = model(IDS).logits
    torch.nn.init.normal_(model.stack[1].H.prefix_value)  # type: ignore[index, union-attr]
    changed = (model(IDS).logits - before).abs().amax(-1)
    assert (changed > 1e-4).all()


def test_patterns_that_do_not_fit_are_told(gpt2: CheckedGraph) -> None:
    with pytest.raises(AtinukeError, match=r"nothing is called `stack.\*.H.qvk`"):
        lora(gpt2, "stack.*.H.qvk")
    with pytest.raises(AtinukeError, match="no linear map has a part `x`"):
        lora(gpt2, "stack.*.H.qkv", parts=("x",))
    with pytest.raises(AtinukeError, match=r"`stack\.0\.H` and `stack\.1\.H` are the same node `layer\.H`"):
        lora(gpt2, "stack.0.H.qkv")
    with pytest.raises(AtinukeError, match=r"`stack\.0\.F` and `stack\.1\.F` are the same node"):
        add_adapters(gpt2, ["stack.1.F"], 4, "after")
    with pytest.raises(AtinukeError, match="has no setting `learned_prefix`"):
        add_prefix(gpt2, ["stack.*.F"], 4, "on")
