"""Transcripts and translations of converted models against what transformers writes."""

import json
from pathlib import Path

import jiwer
import numpy as np
import pytest
import sacrebleu
import torch
import transformers
from scipy.io import wavfile

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.evaluate_task import TaskEvaluation, evaluate_task
from atinuke.pipelines.pretrained.huggingface import convert
from tests.pipelines.pretrained.test_seq2seq import END, KINDS, SAMPLES, START, small, tokenizer

SOURCES = ["w3 w9", "w4 w5 w6 w7 w8 w3", "w12"]
RIGHT = ["w5 w6 w6", "w7", "w3 w4 w5"]
NEW = 6


def model(folder: Path, kind: str):  # type: ignore[no-untyped-def]
    theirs = small(*KINDS[kind])
    theirs.save_pretrained(folder / "theirs")
    made = tokenizer()
    if kind == "t5":
        import tokenizers

        end = [("</s>", END)]
        made.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=end)
    made.save(str(folder / "theirs/tokenizer.json"))
    convert(folder / "theirs", folder / "model")
    return theirs


def rows(file: Path, name: str, values: list[str]) -> Path:
    told = [{name: value, "text": right} for value, right in zip(values, RIGHT, strict=True)]
    file.write_text("".join(json.dumps(one) + "\n" for one in told))
    return file


def words(tokens: list[int]) -> str:
    new = tokens[tokens.index(START) + 1 :] if START in tokens else tokens
    return " ".join(f"w{token}" for token in (new[: new.index(END)] if END in new else new) if token)


def measured(folder: Path, task: str, data: Path, *sets: str) -> tuple[TaskEvaluation, list[str]]:
    found = evaluate_task(folder / "model", task, [data], [f"task.length={NEW}", *sets])
    return found, (found.folder / "predictions.txt").read_text().splitlines()


@pytest.mark.parametrize("beams", [1, 3])
def test_translations(tmp_path: Path, beams: int) -> None:
    theirs = model(tmp_path, "t5")
    data = rows(tmp_path / "pairs.jsonl", "source", SOURCES)
    found, said = measured(tmp_path, "translation", data, f"task.beams={beams}", "task.prefix='w20 '")
    wanted = []
    for source in SOURCES:
        ids = torch.tensor([[20, *(int(word[1:]) for word in source.split()), END]])
        with torch.inference_mode():
            written = theirs.generate(ids, max_new_tokens=NEW, num_beams=beams, do_sample=False)
        wanted.append(words(written[0].tolist()[1:]))
    assert [" ".join(word for word in one.split() if word != "w0") for one in said] == wanted
    assert len({*wanted}) > 1
    values = {one.name: one.interval.value for one in found.scores}
    items = [json.loads(line)["prediction"] for line in (found.folder / "items.jsonl").read_text().splitlines()]
    assert values["chrF"] == pytest.approx(sacrebleu.CHRF().corpus_score(items, [RIGHT]).score)
    assert values["BLEU"] == pytest.approx(sacrebleu.BLEU().corpus_score(items, [RIGHT]).score)


def test_transcripts(tmp_path: Path) -> None:
    theirs = model(tmp_path, "whisper")
    random = np.random.default_rng(0)
    waves = [(3000 * random.standard_normal(size)).astype(np.int16) for size in (SAMPLES, 900, 2000)]
    for number, wave in enumerate(waves):
        wavfile.write(tmp_path / f"{number}.wav", 16000, wave)
    data = rows(tmp_path / "clips.jsonl", "sound", ["0.wav", "1.wav", "2.wav"])
    found, said = measured(tmp_path, "transcription", data)
    extractor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    heard = extractor([wave / 32768 for wave in waves], sampling_rate=16000, max_length=SAMPLES, return_tensors="pt")
    with torch.inference_mode():
        written = theirs.generate(heard.input_features.float(), max_new_tokens=NEW, do_sample=False)
    assert said == [" ".join(f"w{token}" for token in row if token != END) for row in written.tolist()]
    assert len({*said}) > 1
    (score,) = found.scores
    assert (score.name, score.interval.units) == ("WER", 3)
    assert score.interval.value == pytest.approx(jiwer.wer(RIGHT, said))
    (tmp_path / "1.wav").write_bytes(b"RIFF")
    with pytest.raises(AtinukeError, match=r"clips\.jsonl:2  .*"):
        measured(tmp_path, "transcription", data)
    with pytest.raises(AtinukeError, match="does not write from one text alone"):
        measured(tmp_path, "translation", rows(tmp_path / "x.jsonl", "source", SOURCES))
    with pytest.raises(AtinukeError, match="the tokenizer has no special token `<|yo|>`".replace("|", r"\|")):
        measured(tmp_path, "transcription", data, "task.begin=['<|yo|>']")


def test_a_sound_that_is_too_long_is_named(tmp_path: Path) -> None:
    model(tmp_path, "whisper")
    for number, size in enumerate((900, SAMPLES + 1, 800)):
        wavfile.write(tmp_path / f"{number}.wav", 16000, np.zeros(size, np.int16))
    data = rows(tmp_path / "clips.jsonl", "sound", ["0.wav", "1.wav", "2.wav"])
    with pytest.raises(AtinukeError, match=r"clips\.jsonl:2  has 3,201 samples, but the graph reads"):
        measured(tmp_path, "transcription", data)
