"""Model folders as bundles: texts and sound in, labels and texts out, those of transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tokenizers
import torch
import transformers
from tokenizers.processors import TemplateProcessing
from torch import nn

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.deploy import open_subject
from atinuke.pipelines.pretrained import reading
from atinuke.pipelines.pretrained.folder import open_folder
from atinuke.pipelines.pretrained.huggingface import convert
from atinuke.pipelines.pretrained.writing import begin_of_text
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.pipelines.pretrained import test_senses as senses
from tests.pipelines.pretrained.models import BERT, LABELS, LLAMA, Kind
from tests.pipelines.pretrained.test_seq2seq import END, SAMPLES, START, T5, WHISPER, small, tokenizer

NEW = 8
SEVERAL = {"lang_to_id": {"<|en|>": 3, "<|yo|>": 4}, "task_to_id": {"transcribe": 5, "translate": 6}}
SEVERAL |= {"no_timestamps_token_id": 7, "is_multilingual": True}
COMPILE = ("-t", "onnx/fp32", "--minutes", "0.02", "--set", "batch=1..2")


def framed(*around: str) -> tokenizers.Tokenizer:
    """Words, with special tokens around a text: `$A </s>`."""
    made = tokenizer()
    made.add_special_tokens([word for word in around if word != "$A"])
    special = [(word, made.token_to_id(word)) for word in around if word != "$A"]
    made.post_processor = TemplateProcessing(single=" ".join(around), special_tokens=special)
    return made


def compiled(run: Any, theirs: nn.Module, words: tokenizers.Tokenizer, folder: Path, *sets: str) -> Path:  # noqa: F811
    """The bundle of a model of theirs."""
    theirs.save_pretrained(folder / "theirs")  # type: ignore[operator]
    words.save(str(folder / "theirs" / "tokenizer.json"))
    code, _, err = run("convert", folder / "theirs", folder / "ours")
    assert code == 0, err
    options = [part for one in sets for part in ("--set", one)]
    code, _, err = run("compile", folder / "ours", "-o", folder / "bundle", *COMPILE, *options)
    assert code == 0, err
    return folder / "bundle"


def said(words: tokenizers.Tokenizer, tokens: list[int]) -> str:
    return str(words.decode(tokens[: tokens.index(END)] if END in tokens else tokens))


@torch.no_grad()
def test_labels_of_a_text(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    words = framed("w2", "$A", "</s>")
    theirs = Kind("BertForSequenceClassification", {**BERT, **LABELS}).model()
    bundle = compiled(run, theirs, words, tmp_path)
    texts = ("w5 w9 w30", "w12")
    code, out, err = run("run", bundle, *(part for text in texts for part in ("--text", text)), "--json")
    assert code == 0, err
    names = LABELS["id2label"]
    for text, found in zip(texts, json.loads(out)["outputs"]["logits"], strict=True):
        shares = theirs(torch.tensor([words.encode(text).ids])).logits[0].softmax(-1)
        assert found == pytest.approx({names[i]: float(share) for i, share in enumerate(shares)}, abs=1e-5)
    code, _, err = run("run", bundle, "--text", " ".join(["w7"] * 29))
    assert code == 2
    assert "is too long\n  29 tokens; there is room for 28" in err


@torch.no_grad()
def test_a_text_from_a_text(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    words, theirs = framed("$A", "</s>"), small("T5ForConditionalGeneration", {**T5, "num_layers": 1})
    bundle = compiled(run, theirs, words, tmp_path, "source=1..8", "sequence=1..16")
    for text in ("w5 w9 w30 w4", "w12"):
        ids = torch.tensor([words.encode(text).ids])
        expected = theirs.generate(ids, max_new_tokens=NEW, do_sample=False)[0].tolist()
        assert expected[0] == START != END
        code, out, err = run("run", bundle, "--text", text, "--temperature", "0", "--max-new-tokens", NEW)
        assert code == 0, err
        assert out == said(words, expected[1:]) + "\n"
    assert f" of them and begins with the tokens [{START}]; " in (bundle / "README.md").read_text()


@torch.no_grad()
def test_a_text_from_sound(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    """By a Whisper of several languages: the language, the task and no times stand in front."""
    words, theirs = tokenizer(), small("WhisperForConditionalGeneration", {**WHISPER, "encoder_layers": 1})
    for key, value in {**SEVERAL, "language": "yo", "task": "translate", "return_timestamps": False}.items():
        setattr(theirs.generation_config, key, value)
    bundle = compiled(run, theirs, words, tmp_path, f"samples=160..{SAMPLES}", "sequence=1..16")
    assert json.loads((bundle / "config.json").read_text())["text"]["begins"] == [START, 4, 6, 7]
    wave = 0.1 * np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    extractor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    heard = extractor([wave], sampling_rate=16000, max_length=SAMPLES).input_features
    expected = theirs.generate(torch.from_numpy(np.array(heard)), max_new_tokens=NEW, do_sample=False)[0].tolist()
    code, out, err = run("run", bundle, "--audio", tmp_path / "a.wav", "--temperature", "0", "--max-new-tokens", NEW)
    assert code == 0, err
    assert out == said(words, expected) + "\n"


def begun(folder: Path, **generation: Any) -> tuple[int, ...]:
    (folder / "generation_config.json").write_text(json.dumps({"decoder_start_token_id": START, **generation}))
    return begin_of_text(folder)


def test_what_whisper_begins_with(tmp_path: Path) -> None:
    small("WhisperForConditionalGeneration", WHISPER).save_pretrained(tmp_path / "theirs")
    tokenizer().save(str(tmp_path / "theirs" / "tokenizer.json"))
    folder = tmp_path / "ours"
    convert(tmp_path / "theirs", folder)
    assert begun(folder) == (START,)
    assert begun(folder, is_multilingual=False, no_timestamps_token_id=7) == (START, 7)
    assert begun(folder, is_multilingual=False, forced_decoder_ids=[[1, 7]], no_timestamps_token_id=7) == (START, 7)
    assert begun(folder, **SEVERAL, language="yo") == (START, 4, 5, 7)
    assert begun(folder, **SEVERAL, language="<|EN|>", task="translate") == (START, 3, 6, 7)
    assert begun(folder, **SEVERAL, language="en", return_timestamps=True) == (START, 3, 5)
    assert begun(folder, **SEVERAL, forced_decoder_ids=[[1, 4], [2, 5], [3, 7]]) == (START, 4, 5, 7)
    with pytest.raises(AtinukeError, match=r"has a `language` that the model does not know: ig\n  it knows <\|en\|>, "):
        begun(folder, **SEVERAL, language="ig")
    with pytest.raises(AtinukeError, match="has a `task` that the model does not know: sing\n  it knows transcribe, "):
        begun(folder, **SEVERAL, language="yo", task="sing")
    for forced in ({}, {"forced_decoder_ids": [[1, None], [2, 5]]}):
        assert begun(folder, **SEVERAL, **forced) == (START,)
        with pytest.raises(AtinukeError, match="does not say in which language it writes\n  it knows <") as caught:
            open_subject(str(folder))
        assert 'to fix: add a line such as `"language": "yo"`' in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "inputs", "names"),
    [
        (Kind("BertForTokenClassification", {**BERT, **LABELS}), ["input_ids"], ("bad", "good", "neither")),
        (Kind("RobertaForSequenceClassification", {**BERT, "num_labels": 1}, padding=1), ["input_ids"], None),
        (
            Kind("BertForSequenceClassification", {**BERT, "problem_type": "multi_label_classification"}),
            ["input_ids"],
            None,
        ),
        (Kind("LlamaForCausalLM", LLAMA), [], None),
    ],
)
def test_what_is_read_and_named(kind: Kind, inputs: list[str], names: tuple[str, ...] | None, tmp_path: Path) -> None:
    kind.save(tmp_path / "theirs")
    framed("$A", "</s>").save(str(tmp_path / "theirs" / "tokenizer.json"))
    convert(tmp_path / "theirs", tmp_path / "ours")
    checked = open_folder(tmp_path / "ours").checked
    written = None if inputs else "input_ids"
    assert list(reading.fields(tmp_path / "ours", checked, written)) == inputs
    assert reading.classes(tmp_path / "ours", checked) == ({"logits": names} if names else {})


@pytest.mark.parametrize(("kind", "inputs"), [("ast", ["input_values"]), ("clip", []), ("vit", [])])
def test_what_of_the_senses_is_read(kind: str, inputs: list[str], tmp_path: Path) -> None:
    """Sound, but no pictures: transformers scales them in other ways."""
    senses.small(kind, tmp_path / "theirs")
    framed("$A", "</s>").save(str(tmp_path / "theirs" / "tokenizer.json"))
    convert(tmp_path / "theirs", tmp_path / "ours")
    found = reading.fields(tmp_path / "ours", open_folder(tmp_path / "ours").checked, None)
    assert list(found) == inputs
    assert all(field["name"] == "audio" and field["mask"] == "sample_mask" for field in found.values())


def test_without_a_tokenizer_arrays_are_read(tmp_path: Path) -> None:
    Kind("BertModel", BERT).save(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours")
    assert open_subject(str(tmp_path / "ours")).fields == {}
