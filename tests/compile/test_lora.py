"""Low-rank updates: what a graph file says, the source that comes of it, and merging."""

from pathlib import Path

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from atinuke.compile.eject import eject
from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.lora import LoRALinear, merge, unmerge
from atinuke.compile.merge import merged
from atinuke.compile.module import build, source_of
from atinuke.core.checked import CheckedGraph
from atinuke.core.cost import components, count_parameters
from atinuke.core.document import parse
from atinuke.core.dump import dump
from atinuke.core.errors import AtinukeError
from atinuke.core.registry import Registry
from atinuke.core.schema import json_schema
from atinuke.core.show import short_settings
from atinuke.core.spec import loads
from atinuke.core.swap import swap
from atinuke.plugins.linear import Linear

LAYER = "H:     {use: attention.self,   in: norm1, with: {d_model: $d_model, heads: $heads, kv_heads: $kv_heads}LORA}"
GRAPH = f"""\
atinuke: 1
name: tiny
dims: {{vocab_size: 32, d_model: 16, heads: 4, kv_heads: 2, layers: 2, rank: 2}}
axes: {{batch: 1..8, sequence: 1..16}}
inputs:
  input_ids: int64[batch, sequence]
blocks:
  layer:
    inputs: {{x: "float[batch, sequence, d_model]"}}
    nodes:
      norm1: {{use: norm.layer, in: x, with: {{d_model: $d_model}}}}
      {LAYER}
      F:     {{use: feedforward.swiglu, in: H, with: {{d_model: $d_model, d_ff: 24}}}}
    outputs: F
nodes:
  E:     {{use: text.embedding, in: input_ids, with: {{vocab_size: $vocab_size, d_model: $d_model}}}}
  stack: {{use: layer, repeat: $layers, in: E}}
  O:
    use: head.vocabulary
    in: stack
    with: {{d_model: $d_model, vocab_size: $vocab_size}}
    tie: {{weight: E.weight}}
outputs: {{logits: O}}
"""
PLAIN = GRAPH.replace("LORA", "")
LORA = GRAPH.replace("LORA", ", lora: {qkv: {rank: $rank, alpha: 16, parts: [q, v]}, output: {rank: 3}}")
IDS = torch.arange(14).reshape(2, 7)


def adapted(text: str = LORA) -> tuple[CheckedGraph, nn.Module]:
    """A model whose updates have been trained, as it were."""
    torch.manual_seed(0)
    checked = check_graph(loads(text))
    model = build(checked).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.5)
    return checked, model


def test_the_source_stays_plain_and_names_stay() -> None:
    checked, model = adapted()
    assert "self.H.qkv = LoRALinear(self.H.qkv, rank=2, alpha=16.0, parts=['q', 'v'])\n" in source_of(checked).text
    assert "self.H.output = LoRALinear(self.H.output, rank=3, alpha=3.0)\n" in source_of(checked).text
    theirs = build(check_graph(loads(PLAIN))).state_dict()
    added = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in theirs}
    assert theirs.keys() <= model.state_dict().keys()
    assert added == {
        f"stack.{i}.H.{name}": shape
        for i in (0, 1)
        for name, shape in {
            "qkv.lora_A": (4, 16),
            "qkv.lora_B": (24, 2),
            "output.lora_A": (3, 16),
            "output.lora_B": (16, 3),
        }.items()
    }
    counted = count_parameters(node for _, _, node in components(checked.body))
    assert counted == sum(parameter.numel() for parameter in model.parameters())


def test_a_fresh_update_changes_nothing() -> None:
    torch.manual_seed(0)
    model, plain = build(check_graph(loads(LORA))), build(check_graph(loads(PLAIN)))
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    assert torch.equal(model(IDS).logits, plain(IDS).logits)


def test_merged_is_the_graph_without_updates() -> None:
    checked, model = adapted()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph, plain = merged(checked, model)
    assert graph.graph == loads(PLAIN)
    assert plain.state_dict().keys() == build(graph).state_dict().keys()
    assert not any(isinstance(module, LoRALinear) for module in plain.modules())
    wanted = model(IDS).logits
    assert (plain(IDS).logits - wanted).abs().max() < 1e-6 < (wanted - fresh(checked)).abs().max()
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert merged(graph, plain) == (graph, plain)


def fresh(checked: CheckedGraph) -> torch.Tensor:
    torch.manual_seed(0)
    logits: torch.Tensor = build(checked)(IDS).logits
    return logits


def test_unmerge_is_exact() -> None:
    _, model = adapted()
    before, state = model(IDS).logits, model.state_dict()
    merge(model)
    assert (model(IDS).logits - before).abs().max() < 1e-6
    assert model.state_dict().keys() == state.keys()
    unmerge(model)
    assert torch.equal(model(IDS).logits, before)


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    chosen=st.data(),
    rank=st.integers(1, 3),
    alpha=st.floats(0.5, 32),
    seed=st.integers(0, 99),
)
def test_each_part_has_its_own_update(
    sizes: list[int], chosen: st.DataObject, rank: int, alpha: float, seed: int
) -> None:
    """Against the formula of the paper in float64, part by part."""
    torch.manual_seed(seed)
    parts = {f"part{number}": size for number, size in enumerate(sizes)}
    wanted = chosen.draw(st.lists(st.sampled_from(list(parts)), min_size=1, unique=True))
    base = Linear(5, sum(sizes), parts=parts).double()
    lora = LoRALinear(base, rank, alpha, wanted)
    assert lora.weight is base.weight
    assert lora.bias is base.bias
    nn.init.normal_(lora.lora_B)
    x = torch.randn(3, 5, dtype=torch.float64)
    downs, ups = iter(lora.lora_A.split(rank)), iter(lora.lora_B.split([parts[p] for p in parts if p in wanted]))
    rows = list(base.weight.split(sizes))
    for number, part in enumerate(parts):
        if part in wanted:
            rows[number] = rows[number] + alpha / rank * next(ups) @ next(downs)
    expected = x @ torch.cat(rows).T + base.bias
    assert torch.allclose(lora(x), expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(x @ lora.merged_weight().T + base.bias, expected, rtol=1e-12, atol=1e-12)


def test_dropout_is_of_training_alone() -> None:
    lora = LoRALinear(Linear(8, 8), 2, 2.0, dropout=0.5)
    nn.init.normal_(lora.lora_B)
    x = torch.randn(4, 8)
    assert not torch.equal(lora(x), lora(x))
    assert torch.equal(lora.eval()(x), lora(x))


def test_steps_equal_forward() -> None:
    _, model = adapted()
    position, state = torch.zeros(2, dtype=torch.int64), model.state(2, 7)
    found = []
    for piece in (IDS[:, :4], IDS[:, 4:5], IDS[:, 5:]):
        out, state = model.step(piece, position, state)
        found.append(out.logits)
        position = position + piece.shape[1]
    assert torch.allclose(torch.cat(found, 1), model(IDS).logits, atol=1e-6)


def test_it_survives_writing_and_is_ejected(tmp_path: Path) -> None:
    checked, model = adapted()
    (tmp_path / "graph.yaml").write_text(dump(checked.graph))
    assert open_graph(str(tmp_path / "graph.yaml")).graph == checked.graph
    space: dict[str, type[nn.Module]] = {}
    exec(eject(checked), space)
    alone = space["Tiny"]().eval()
    alone.load_state_dict(model.state_dict())
    assert torch.equal(alone(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        ("{qvk: {rank: 2}}", ["has no linear map `qvk`", "use `qkv`"]),
        ("{output: {rank: 2, parts: [q]}}", ["`output` has no part `q`", "leave out `parts`"]),
        ("{qkv: {rank: 2, parts: [x]}}", ["`qkv` has no part `x`", "use `parts` of: q, k, v"]),
        ("{qkv: {rank: 9, parts: [q, k]}}", ["rank 9 of `qkv` is more than 8"]),
        ("{qkv: {rank: 0}}", ["rank must be a whole number, at least 1, but is 0"]),
        ("{qkv: {rank: 2, alpha: -1}}", ["alpha must be a number above 0"]),
        ("{qkv: {rank: 2, dropout: 1}}", ["dropout must be at least 0 and below 1"]),
        ("{qkv: {rank: 2, parts: q}}", ["parts must be a list of names"]),
        ("{qkv: {rank: 2, parts: [q, q]}}", ["parts names one twice"]),
        ("{qkv: {alfa: 2}}", ["unknown key `alfa`", "has no `rank`"]),
        ("{qkv: {rank: $index}}", ["cannot depend on `$index`"]),
        ("{qkv: {rank: $ranks}}", ["`ranks` is not a dim", "use `rank`"]),
        ("{1: {rank: 2}}", ["names no linear map"]),
        ("[qkv]", ["`lora` must be a mapping"]),
    ],
)
def test_what_cannot_be_is_told_with_its_line(lora: str, told: list[str], tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(GRAPH.replace("LORA", f", lora: {lora}"))
    with pytest.raises(AtinukeError) as error:
        open_graph(str(tmp_path / "g.yaml"))
    assert all(text in str(error.value) for text in told), str(error.value)
    assert "g.yaml:12" in str(error.value)


def test_editors_and_tables_know_updates() -> None:
    schema = json_schema(Registry())
    for text in (LORA, GRAPH.replace("LORA", ", lora: {qkv: {alpha: 2}}")):
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(parse(text, "g").data))
        assert bool(errors) == (text != LORA)
    row = next(node for path, _, node in components(adapted()[0].body) if path == "stack.H")
    assert short_settings(row).endswith("lora=qkv lora=output")


def test_another_component_has_no_updates() -> None:
    graph = swap(loads(LORA), "layer.H", "identity", {}, Registry())
    assert not graph.blocks["layer"].nodes["H"].lora


def test_a_block_has_no_linear_maps() -> None:
    with pytest.raises(AtinukeError, match="stack: a block has no linear maps"):
        check_graph(loads(PLAIN.replace("in: E}", "in: E, lora: {H: {rank: 2}}}")))
