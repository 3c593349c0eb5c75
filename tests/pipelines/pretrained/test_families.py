"""Every shipped family against transformers: the same numbers, the same texts, and back without a tensor lost."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import atinuke
from atinuke import families
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.pretrained.config import read_json
from atinuke.pipelines.pretrained.family import load_family
from atinuke.pipelines.pretrained.huggingface import convert, to_huggingface
from atinuke.pipelines.pretrained.opening import Pretrained
from tests.pipelines.pretrained.models import DECODERS, ENCODERS, LLAMA, TOKENS, Kind

KINDS = {**DECODERS, **ENCODERS}
NAMES = {"pooled": "pooler_output"}  # outputs that transformers calls differently
LONGEST = 12


@dataclass(frozen=True)
class Pair:
    kind: Kind
    theirs: nn.Module
    ours: Pretrained
    folder: Path


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    kind, folder = KINDS[request.param], tmp_path_factory.mktemp("model")
    theirs = kind.save(folder / "theirs")
    convert(folder / "theirs", folder / "ours")
    return Pair(kind, theirs, atinuke.from_pretrained(folder / "ours"), folder)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[int]], bool]:
    """Rows of tokens of mixed lengths, and whether they are padded in front."""
    tokens = st.integers(4, TOKENS - 1)
    rows = draw(st.lists(st.lists(tokens, min_size=1, max_size=LONGEST), min_size=1, max_size=4))
    return rows, draw(st.booleans())


def padded(rows: list[list[int]], in_front: bool, padding: int) -> tuple[Tensor, Tensor]:
    """A batch of the rows, and where it is no padding."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), padding)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        place = slice(width - len(row), None) if in_front else slice(0, len(row))
        ids[number, place] = torch.tensor(row)
        mask[number, place] = True
    return ids, mask


@given(batches(), st.data())
@settings(max_examples=12)
@torch.no_grad()
def test_gives_what_transformers_gives(pair: Pair, drawn: tuple[list[list[int]], bool], data: st.DataObject) -> None:
    inputs = pair.ours.checked.graph.inputs
    rows, in_front = drawn
    # Padding in front of a decoder moves its positions, of which our graphs have no input.
    ids, mask = padded(rows, in_front and "attention_mask" in inputs, pair.kind.padding)
    ours, theirs = {"input_ids": ids}, {"input_ids": ids, "attention_mask": mask.long()}
    if "attention_mask" in inputs:
        ours["attention_mask"] = mask
    if "segment_ids" in inputs:
        high = getattr(pair.theirs.config, "type_vocab_size", 1)
        segments = data.draw(st.lists(st.integers(0, high - 1), min_size=ids.numel(), max_size=ids.numel()))
        ours["segment_ids"] = theirs["token_type_ids"] = torch.tensor(segments).view(ids.shape)
    found, expected = pair.ours.model(**ours), pair.theirs(**theirs, output_hidden_states=True)
    for name in found._fields:
        got, wanted = getattr(found, name), theirs_of(expected, name)
        if got.ndim == 3:
            got, wanted = got[mask], wanted[mask]
        elif in_front:
            continue  # their pooler reads the first place, be it padding or not
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


def theirs_of(expected: Any, name: str) -> Tensor:
    """An output by our name. What has a head does not give the last vectors but among all."""
    if name == "span":
        return torch.stack((expected.start_logits, expected.end_logits), -1)
    found: Tensor = getattr(expected, NAMES.get(name, name), expected.hidden_states[-1])
    return found


@torch.no_grad()
def test_comes_back_whole(pair: Pair) -> None:
    to_huggingface(pair.folder / "ours", pair.folder / "back")
    cls = type(pair.theirs)
    again, report = cls.from_pretrained(pair.folder / "back", output_loading_info=True)
    assert not any(report.values()), report
    theirs = pair.theirs.state_dict()
    assert again.state_dict().keys() == theirs.keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    assert read_json(pair.folder / "back" / "config.json") == read_json(pair.folder / "theirs" / "config.json")


@pytest.mark.parametrize("name", [name for name, kind in DECODERS.items() if not kind.architecture.endswith("Model")])
@torch.no_grad()
def test_writes_the_same_text(name: str, tmp_path: Path) -> None:
    theirs = DECODERS[name].save(tmp_path / "theirs")
    model = atinuke.from_pretrained(tmp_path / "theirs").model
    prompts = torch.randint(4, TOKENS, (3, 5), generator=torch.Generator().manual_seed(1))
    expected = theirs.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=12, do_sample=False)
    state, tokens, new = model.state(3, 20), prompts, prompts
    for place in [0, *range(5, 16)]:
        out, state = model.step(new, torch.full((3,), place), state)
        new = out.logits[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat((tokens, new), dim=1)
    assert tokens.tolist() == expected.tolist()
    assert len(set(tokens[:, 5:].flatten().tolist())) > 1


@torch.no_grad()
def test_a_window_is_theirs(tmp_path: Path) -> None:
    """Mistral 7B's window of 4,096 tokens, with 3 in its place."""
    theirs = Kind("MistralForCausalLM", {**LLAMA, "sliding_window": 3, "attn_implementation": "eager"}).save(tmp_path)
    family = tmp_path / "mistral.yaml"
    family.write_text(families.path("mistral").read_text().replace("4096", "3"))
    ids = torch.randint(4, TOKENS, (2, LONGEST), generator=torch.Generator().manual_seed(1))
    found = atinuke.from_pretrained(tmp_path, family).model(ids).logits
    torch.testing.assert_close(found, theirs(ids).logits, rtol=0, atol=1e-5)
    theirs.config.sliding_window = None
    assert not torch.allclose(found, theirs(ids).logits, atol=1e-3)


@torch.no_grad()
def test_a_bias_that_they_lack_is_told_on_the_way_back(tmp_path: Path) -> None:
    DECODERS["qwen2"].save(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours")
    file = tmp_path / "ours" / "model.safetensors"
    tensors = load_file(file)
    assert not tensors["stack.1.H.output.bias"].any()
    tensors["stack.1.H.output.bias"][2] = 0.5
    save_file(tensors, file)
    with pytest.raises(AtinukeError, match=re.escape("`stack.1.H.qkv.bias + stack.1.H.output.bias` that is always")):
        to_huggingface(tmp_path / "ours", tmp_path / "back")


def test_every_architecture_of_a_text_family_is_tried() -> None:
    tried = {kind.architecture for kind in KINDS.values()}
    for name in ("bert", "distilbert", "gpt2", "llama", "mistral", "qwen2"):
        assert load_family(families.path(name)).architectures.keys() <= tried
    roberta = load_family(families.path("roberta")).architectures
    assert {name for name in roberta if not name.startswith("XLM")} | {"XLMRobertaForMaskedLM"} <= tried
    assert all(roberta[f"XLM{name}"] == one for name, one in roberta.items() if not name.startswith("XLM"))


@torch.no_grad()
def test_precision_is_kept_and_widened_on_opening(tmp_path: Path) -> None:
    DECODERS["llama"].model().bfloat16().save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours")
    assert {tensor.dtype for tensor in load_file(tmp_path / "ours" / "model.safetensors").values()} == {torch.bfloat16}
    ids = torch.randint(TOKENS, (2, 7))
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "theirs", dtype=torch.float32)
    ours = atinuke.from_pretrained(tmp_path / "ours").model
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=0, atol=1e-5)
    narrow = atinuke.from_pretrained(tmp_path / "ours", dtype=torch.bfloat16).model
    assert narrow(ids).logits.dtype == torch.bfloat16
    to_huggingface(tmp_path / "ours", tmp_path / "back")
    kept = load_file(tmp_path / "back" / "model.safetensors")
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    assert kept.keys() == before.keys()
    assert all(torch.equal(kept[name], before[name]) and kept[name].dtype == torch.bfloat16 for name in before)


@torch.no_grad()
def test_in_several_files_both_ways(tmp_path: Path) -> None:
    kind = ENCODERS["bert masked"]
    theirs = kind.model()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=4000)
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    convert(tmp_path / "theirs", tmp_path / "ours")
    to_huggingface(tmp_path / "ours", tmp_path / "back", shard=4000)
    assert len(list((tmp_path / "back").glob("*.safetensors"))) > 2
    for folder in ("ours", "back"):  # may be read by all who may read the rest
        assert len({file.stat().st_mode for file in (tmp_path / folder).iterdir()}) == 1
    again, report = transformers.BertForMaskedLM.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(report.values()), report
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), theirs.state_dict().values(), strict=True)
    )


def test_a_config_of_a_hub_is_read(tmp_path: Path) -> None:
    """What is written into config.json of many old fine-tuned models, and comes back."""
    ENCODERS["distilbert labels"].save(tmp_path / "theirs")
    file = tmp_path / "theirs" / "config.json"
    old = {"finetuning_task": "sst-2", "output_past": True, "_num_labels": 3, "tie_weights_": True}
    config = {**read_json(file), **old}
    file.write_text(json.dumps(config))
    convert(tmp_path / "theirs", tmp_path / "ours")
    to_huggingface(tmp_path / "ours", tmp_path / "back")
    assert read_json(tmp_path / "back" / "config.json") == config


@pytest.mark.parametrize("name", ["bert masked", "gpt2"])
def test_old_files_are_read_too(name: str, tmp_path: Path) -> None:
    """Names without the prefix, gains called gamma, buffers that are no weights any more, and second names."""
    ENCODERS.get(name, DECODERS["gpt2"]).save(tmp_path)
    file = tmp_path / "model.safetensors"
    before = atinuke.from_pretrained(tmp_path).model.state_dict()
    tensors = load_file(file)
    if name == "gpt2":
        old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        old["h.0.attn.bias"] = torch.ones(1, 1, 30, 30)
    else:
        called = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        old = {re.sub("|".join(called), lambda found: called[found[0]], name): t for name, t in tensors.items()}
        old["bert.embeddings.position_ids"] = torch.arange(30)[None]
        old["bert.pooler.dense.weight"] = torch.ones(24, 24)
        old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"].clone()
        old["cls.predictions.decoder.bias"] = old["cls.predictions.bias"].clone()
    assert not old.keys() <= tensors.keys()
    save_file(old, file)
    after = atinuke.from_pretrained(tmp_path).model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
