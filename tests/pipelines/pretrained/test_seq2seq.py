"""T5 and Whisper against transformers: the same scores, the same texts, and back without a tensor lost."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from atinuke.pipelines.generate import generate
from atinuke.pipelines.pretrained.huggingface import convert, to_huggingface
from atinuke.pipelines.run import Run, open_model, open_run
from atinuke.pipelines.sampling import Settings

TOKENS, END, START = 40, 1, 2
NEW = 10
T5 = {
    "d_model": 24,
    "d_kv": 5,
    "d_ff": 20,
    "num_layers": 2,
    "num_decoder_layers": 1,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 6,
    "pad_token_id": 0,
}
GATED = {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
WHISPER = {
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 28,
    "num_mel_bins": 8,
    "max_source_positions": 10,
    "max_target_positions": 30,
    "bos_token_id": END,
    "pad_token_id": END,
    "begin_suppress_tokens": None,
}
SAMPLES = 3200  # as many as 10 positions of Whisper hear
KINDS = {
    "t5": ("T5ForConditionalGeneration", T5),
    "t5 gated": ("T5ForConditionalGeneration", GATED),
    "whisper": ("WhisperForConditionalGeneration", WHISPER),
}


@dataclass(frozen=True)
class Pair:
    theirs: Any
    ours: Any
    folder: Path

    def fed(self, rows: list[int], seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What an encoder reads, for ours and for theirs: rows of these lengths with garbage behind them."""
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.tensor(rows)[:, None]
        if self.theirs.config.model_type == "t5":
            ids = torch.randint(3, TOKENS, (len(rows), max(rows)), generator=generator)
            mask = torch.arange(max(rows)) < lengths
            return {"source_ids": ids, "source_mask": mask}, {"input_ids": ids, "attention_mask": mask.long()}
        waves = 0.1 * torch.randn(len(rows), SAMPLES, generator=generator)
        mask = torch.arange(SAMPLES) < 250 * lengths
        extractor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
        heard = extractor(
            [wave[counts].numpy() for wave, counts in zip(waves, mask, strict=True)],
            sampling_rate=16000,
            max_length=SAMPLES,
        )
        return {"input_values": waves, "sample_mask": mask}, {
            "input_features": torch.from_numpy(np.array(heard.input_features))
        }


def small(architecture: str, config: Mapping[str, Any]) -> nn.Module:
    """A model whose biases and gains are no zeros and ones, and whose head is its own where the config says so."""
    torch.manual_seed(0)
    cls = getattr(transformers, architecture)
    ends = {"eos_token_id": END, "decoder_start_token_id": START}
    model: Any = cls(cls.config_class(vocab_size=TOKENS, **ends, **config)).eval()
    if config.get("tie_word_embeddings") is False and hasattr(model, "lm_head"):
        model.lm_head.weight = nn.Parameter(torch.empty(TOKENS, model.config.d_model))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def tokenizer() -> tokenizers.Tokenizer:
    """A word for each token; one ends a text."""
    words = {"</s>" if number == END else f"w{number}": number for number in range(TOKENS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["</s>"])
    return made


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("model")
    theirs = small(*KINDS[request.param])
    theirs.save_pretrained(folder / "theirs")
    tokenizer().save(str(folder / "theirs" / "tokenizer.json"))
    convert(folder / "theirs", folder / "ours")
    return Pair(theirs, open_run(folder / "ours"), folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("model")
    theirs = small("T5EncoderModel", GATED)
    theirs.save_pretrained(folder / "theirs")
    convert(folder / "theirs", folder / "ours")
    return Pair(theirs, open_model(folder / "ours"), folder)


lengths = st.lists(st.integers(1, 12), min_size=1, max_size=3)


@given(lengths, st.lists(st.integers(0, TOKENS - 1), min_size=1, max_size=12), st.integers(0, 99))
@settings(max_examples=10)
@torch.no_grad()
def test_gives_what_transformers_gives(pair: Pair, rows: list[int], text: list[int], seed: int) -> None:
    ours, theirs = pair.fed(rows, seed)
    ids = torch.tensor(text).expand(len(rows), -1)
    expected = pair.theirs(**theirs, decoder_input_ids=ids).logits
    torch.testing.assert_close(pair.ours.model(**ours, input_ids=ids).logits, expected, rtol=0, atol=1e-5)


@given(lengths, st.integers(0, 99))
@settings(max_examples=6)
@torch.no_grad()
def test_writes_the_same_texts(pair: Pair, rows: list[int], seed: int) -> None:
    ours, theirs = pair.fed(rows, seed)
    expected = pair.theirs.generate(**theirs, max_new_tokens=NEW, do_sample=False)
    run, wanted = pair.ours, Settings(temperature=0, max_new_tokens=NEW)
    assert run.begin == (START,)
    found = generate(run.model, run.tokenizer, [""] * len(rows), wanted, run.context, given=ours, begin=run.begin)
    for row, tokens in zip(found, expected.tolist(), strict=True):
        new = tokens[tokens[0] == START :]  # their Whisper leaves the beginning out
        assert list(row.tokens) == (new[: new.index(END)] if END in new else new)


@pytest.mark.parametrize("beams", [1, 3])
@torch.no_grad()
def test_what_is_muted_is_not_written(pair: Pair, tmp_path: Path, beams: int) -> None:
    """Tokens that it writes and begins with are suppressed by generation_config.json, as Whisper's are."""
    ours, theirs = pair.fed([5, 12, 9], 1)
    wanted = Settings(temperature=0, max_new_tokens=NEW, beams=beams)
    shutil.copytree(pair.folder / "ours", tmp_path / "ours")

    def written(run: Run) -> list[list[int]]:
        texts = [""] * 3
        found = generate(
            run.model, run.tokenizer, texts, wanted, run.context, given=ours, begin=run.begin, muted=run.muted
        )
        return [list(row.tokens) for row in found]

    free = written(pair.ours)
    muted = {
        "suppress_tokens": sorted({row[-1] for row in free}),
        "begin_suppress_tokens": [*{row[0] for row in free}, END],
    }
    file = tmp_path / "ours/generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **muted}))
    run = open_run(tmp_path / "ours")
    found = written(run)
    assert not {token for row in found for token in row} & {*muted["suppress_tokens"]}
    assert not {row[0] for row in found} & {*muted["begin_suppress_tokens"]}
    config = transformers.GenerationConfig.from_pretrained(tmp_path / "ours")
    expected = pair.theirs.generate(
        **theirs, generation_config=config, max_new_tokens=NEW, do_sample=False, num_beams=beams
    )
    for row, tokens in zip(found, expected.tolist(), strict=True):
        new = tokens[tokens[0] == START :]
        assert row == (new[: new.index(END)] if END in new else new)


@given(lengths, st.integers(0, 99))
@settings(max_examples=6)
@torch.no_grad()
def test_an_encoder_by_itself(encoder: Pair, rows: list[int], seed: int) -> None:
    ours, theirs = encoder.fed(rows, seed)
    mask = ours["source_mask"]
    found, expected = encoder.ours.model(**ours).last_hidden_state, encoder.theirs(**theirs).last_hidden_state
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-5)


def test_an_encoder_comes_back_whole(encoder: Pair) -> None:
    back(encoder)


def test_comes_back_whole(pair: Pair) -> None:
    back(pair)


@torch.no_grad()
def back(pair: Pair) -> None:
    to_huggingface(pair.folder / "ours", pair.folder / "back")
    again, report = type(pair.theirs).from_pretrained(pair.folder / "back", output_loading_info=True)
    assert not any(report.values()), report
    theirs = pair.theirs.state_dict()
    assert again.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in again.state_dict().items())
    configs = [json.loads((pair.folder / name / "config.json").read_text()) for name in ("back", "theirs")]
    assert configs[0] == configs[1]
