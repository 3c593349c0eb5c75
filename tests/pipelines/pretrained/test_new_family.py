"""A family that does not ship, added by the two files of docs/pretrained.md: OPT (Zhang et al., 2022)."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.pretrained.huggingface import to_huggingface
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.test_imports import ROOT

PAGE = ROOT / "docs" / "pretrained.md"

FILES = dict(re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
GRAPH, FAMILY = FILES["opt/graph.yaml"], FILES["opt/family.yaml"]
QKV = "model.decoder.layers.#.self_attn.{}_proj.{}"


@pytest.fixture
def theirs(tmp_path: Path) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        vocab_size=40,
        hidden_size=24,
        word_embed_proj_dim=24,
        num_attention_heads=3,
        num_hidden_layers=2,
        ffn_dim=20,
        max_position_embeddings=30,
    )
    model = transformers.OPTForCausalLM(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "theirs")
    (tmp_path / "map").mkdir()
    (tmp_path / "map" / "graph.yaml").write_text(GRAPH)
    (tmp_path / "map" / "opt.yaml").write_text(FAMILY)
    return model


@torch.no_grad()
def test_by_two_files(theirs: nn.Module, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    import atinuke

    family = tmp_path / "map" / "opt.yaml"
    code, out, err = run("convert", tmp_path / "theirs", tmp_path / "ours", "--family", family)
    assert code == 0, err
    numbers = sum(parameter.numel() for parameter in theirs.parameters())
    assert f"OPTForCausalLM as graph opt, {numbers:,} numbers" in out
    family.unlink()  # the model folder has all that it needs
    ids = torch.randint(2, 40, (3, 9))
    ids[1, 6:] = 1
    mask = ids != 1
    model = atinuke.from_pretrained(tmp_path / "ours").model
    expected = theirs(ids, attention_mask=mask.long()).logits
    torch.testing.assert_close(model(ids).logits[mask], expected[mask], rtol=0, atol=1e-5)
    code, _, err = run("convert", tmp_path / "ours", tmp_path / "back", "--to", "huggingface")
    assert code == 0, err
    again, report = transformers.OPTForCausalLM.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(report.values()), report
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), theirs.state_dict().values(), strict=True)
    )


def test_a_graph_of_any_name_beside_the_map(theirs: nn.Module, tmp_path: Path) -> None:
    import atinuke
    from atinuke.pipelines.pretrained.huggingface import convert

    (tmp_path / "map" / "graph.yaml").rename(tmp_path / "map" / "decoder.yaml")
    family = tmp_path / "map" / "opt.yaml"
    family.write_text(FAMILY.replace("graph: graph.yaml", "graph: decoder.yaml"))
    convert(tmp_path / "theirs", tmp_path / "ours", family)
    to_huggingface(tmp_path / "ours", tmp_path / "back")
    assert transformers.OPTForCausalLM.from_pretrained(tmp_path / "back").num_parameters() == theirs.num_parameters()
    with pytest.raises(AtinukeError, match="is a model folder, which has its own family file"):
        atinuke.from_pretrained(tmp_path / "ours", family)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("stack.#.F.up.*: model", "stack.#.F.pu.*: model"), "does not say what `stack.0.F.up.weight` is called there"),
        (("  E.weight: model", "  P.weight: model"), "key `P.weight` is repeated"),
        (("norm.*: model.decoder.final", "norm.weight + norm.bias: model.decoder.final"), "has other `#` and `*` than"),
        (("  O.weight: lm_head.weight", "  norm.bias: lm_head.weight"), "`norm.bias` is named by `norm.*` already"),
        (("d_ff: ffn_dim", "d_fff: ffn_dim"), "names the dim `d_fff`, which its graph does not have"),
        (
            ("layers: num_hidden", "layers: nmu_hidden"),
            "lacks `nmu_hidden_layers`, which the dim `layers` follows from",
        ),
        (("family: 1", "famyli: 1"), "unknown key `famyli`"),
        (("E.weight: model.decoder.embed_tokens.weight", "E.weight: {of: 'a b'}"), "is no name of a tensor"),
        (("{logits: O}", "{logits: Q}"), "names the node `Q`, which its graph does not have"),
        (("{outputs: {logits: O}}", "{dims: {heads: x}, outputs: {logits: O}}"), "lacks `x`, which the dim `heads`"),
        (
            ("{outputs:", "{dims: {heads: num_attention_heads}, outputs:"),
            "`heads` of OPTForCausalLM is in the graph already",
        ),
        (("{outputs:", "{nodes: {norm: {use: identity, in: E}}, outputs:"), "`norm` of OPTForCausalLM is in the graph"),
        (("{logits: O}}", "{logits: Q}, nodes: {Q: {in: O}}}"), "node `Q` does not say what it uses"),
        (("{logits: O}}", "{logits: Q}, nodes: {Q: {use: identity, in: R}}}"), "`R`"),
        (("axes: {sequence: max", "axes: {sequence: [1, 2, 3], b: max"), "axes.sequence"),
        (("graph: graph.yaml", "graph: grahp.yaml"), "no graph file `grahp.yaml`"),
    ],
)
def test_a_wrong_map_is_told(theirs: nn.Module, tmp_path: Path, change: tuple[str, str], told: str) -> None:
    from atinuke.pipelines.pretrained.huggingface import read

    family = tmp_path / "map" / "opt.yaml"
    assert change[0] in FAMILY
    family.write_text(FAMILY.replace(*change, 1))
    with pytest.raises(AtinukeError) as caught:
        read(tmp_path / "theirs", family)
    assert told in str(caught.value)


def test_a_part_that_is_zero_there_has_to_stay_so(theirs: nn.Module, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from atinuke.pipelines.pretrained.huggingface import convert

    file = tmp_path / "theirs" / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if not name.endswith("k_proj.bias")}
    save_file(tensors, file)
    whole = re.search(r"  stack.#.H.qkv.*?_proj\.\*\n(?=  stack)", FAMILY, re.DOTALL)
    assert whole
    weights = " + ".join(QKV.format(one, "weight") for one in "qkv")
    biases = f"{QKV.format('q', 'bias')} + zeros + {QKV.format('v', 'bias')}"
    rules = f"  stack.#.H.qkv.weight: {weights}\n  stack.#.H.qkv.bias: {biases}\n"
    (tmp_path / "map" / "opt.yaml").write_text(FAMILY.replace(whole[0], rules))
    convert(tmp_path / "theirs", tmp_path / "ours", tmp_path / "map" / "opt.yaml")
    ours = load_file(tmp_path / "ours" / "model.safetensors")
    bias = ours["stack.0.H.qkv.bias"]
    assert not bias[24:48].any()
    assert torch.equal(bias[48:], tensors["model.decoder.layers.0.self_attn.v_proj.bias"])
    to_huggingface(tmp_path / "ours", tmp_path / "back")
    assert load_file(tmp_path / "back" / "model.safetensors").keys() == tensors.keys()
    bias[30] = 1.0
    save_file(ours, tmp_path / "ours" / "model.safetensors")
    with pytest.raises(AtinukeError, match=r"a part of `stack.0.H.qkv.bias` that is always zero there"):
        to_huggingface(tmp_path / "ours", tmp_path / "again")
    assert not (tmp_path / "again").exists()
