"""Training on rows of files and labels, with the graph's own inputs and several objectives."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from atinuke.compile.front import open_graph
from atinuke.core.dump import dump
from atinuke.core.errors import AtinukeError
from atinuke.pipelines import log, train
from atinuke.pipelines.fields import Class
from atinuke.pipelines.loop import Loop
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.run import open_model, open_run
from tests.pipelines import senses

RECIPE = """
graph:
  use: audio-encoder
  set: {rate: 1000, mels: 8, d_model: 16, heads: 2, layers: 1, classes: 2, samples: 100..4000, dropout: 0,
        frequency_width: 1, time_width: 1}
rows:
  train: {name: manifest, files: [train.jsonl]}
  validation: {name: manifest, files: [test.jsonl]}
  fields:
    input_values: {name: audio, column: sound, rate: 1000, multiple: 200, mask: sample_mask}
    labels: {name: class, column: pitch}
objective: {name: classification}
optimiser: {name: adamw, lr: 1e-2}
schedule: {name: cosine, warmup: 2}
steps: 50
batch: 8
evaluate_every: 10
save_every: 10
"""


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """High and low tones of different lengths, in noise."""
    random = np.random.default_rng(0)
    for name, count in (("train", 32), ("test", 10)):
        rows = []
        for number in range(count):
            pitch, length = ("low", "high")[number % 2], int(random.integers(300, 900))
            wave = np.sin(2 * math.pi * {"low": 60, "high": 300}[pitch] * np.arange(length) / 1000)
            file = f"{name}{number}.wav"
            soundfile.write(tmp_path / file, 0.5 * wave + 0.05 * random.standard_normal(length), 1000)
            rows.append(json.dumps({"sound": file, "pitch": pitch}))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def start(folder: Path, name: str, *overrides: str) -> list[dict[str, float]]:
    train.start(load_recipe(folder / "recipe.yaml", overrides), folder / name, Console(quiet=True))
    return log.read(folder / name / "log.jsonl")


def weights(folder: Path) -> bytes:
    return (sorted((folder / "checkpoints").iterdir())[-1] / "model.safetensors").read_bytes()


def test_tones_are_told_apart_and_the_model_is_opened(tones: Path) -> None:
    records = start(tones, "run")
    assert records[-1]["validation_accuracy"] == 1.0
    assert 0 <= records[0]["waiting"] <= 1
    assert records[0]["rows_per_second"] > 0
    found = open_model(tones / "run")
    wave = torch.sin(2 * math.pi * 300 * torch.arange(500) / 1000)[None]
    classes = ("high", "low")  # sorted
    with torch.no_grad():
        assert classes[int(found.model(wave).logits.argmax())] == "high"
    with pytest.raises(AtinukeError, match="does not go on with a text"):
        open_run(tones / "run")


def test_an_interrupted_run_ends_with_the_same_bits(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tones, "whole", "steps=12", "save_every=5")
    step: Callable[[Loop], None] = Loop._train
    monkeypatch.setattr(Loop, "_train", lambda loop: 1 / 0 if loop.step == 8 else step(loop))
    with pytest.raises(ZeroDivisionError):
        start(tones, "cut", "steps=12", "save_every=5")
    monkeypatch.undo()
    train.resume(tones / "cut", (), Console(quiet=True))
    assert weights(tones / "cut") == weights(tones / "whole")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rows.fields.input_values.mask=mask", "the graph has no input `mask`"),
        ("rows.fields={labels: {name: class, column: pitch}}", "no field of the rows feeds the input `input_values"),
        ("rows.fields.labels={name: number, column: pitch}", "input `labels: int64.batch.` does not fit its field"),
        ("graph.set.classes=3", "loss tells 3 classes apart, but the rows have 2 classes: high, low"),
        ("graph.set.samples=100..500", "but the graph reads 100..500"),
        ("objective={name: classification, scores: logit}", "the graph has no output `logit`\n(.|\n)*use `logits`"),
        ("objective={name: given}", "gives no loss"),
        ("objective={name: causal}", "`objective` causal needs a `tokenizer`, or name another"),
        ("objective={name: seq2seq, smoothing: 1}", "`objective.smoothing` must be less than 1"),
        ("data={train: [x.txt], context: 4}", "must have either `data` or `rows`"),
        ("rows.train={name: manifest, files: [none.jsonl]}", "there is no such file"),
        ("rows.fields.labels.column=pich", "fewer than two classes"),
    ],
)
def test_what_does_not_fit_is_one_error(tones: Path, override: str, message: str) -> None:
    with pytest.raises(AtinukeError, match=message) as caught:
        start(tones, "run", override)
    assert len(caught.value.mistakes) == 1


def test_bytes_need_room_for_all_of_them(tmp_path: Path) -> None:
    """A character beyond ASCII may come at any step."""
    graph = senses.graph("contrastive").replace("vocab_size: 256", "vocab_size: 255")
    (tmp_path / "graph.yaml").write_text(graph)
    (tmp_path / "recipe.yaml").write_text(senses.recipe("contrastive"))
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(senses.rows(tmp_path, 6, 0, 0.0))
    with pytest.raises(AtinukeError, match="W has room for 255 tokens, but 256 are needed"):
        start(tmp_path, "run")


SPOKEN = """
graph:
  use: spoken.yaml
rows:
  train: {name: manifest, files: [train.jsonl]}
  validation: {name: manifest, files: [test.jsonl]}
  fields:
    input_values: {name: audio, column: sound, rate: 1000, mask: sample_mask}
    labels: {name: classes, column: said}
objective: {name: ctc, mask: mask}
optimiser: {name: adamw, lr: 1e-2}
schedule: {name: cosine, warmup: 2}
steps: 4
batch: 4
evaluate_every: 2
"""
SPOKEN_GRAPH = """
atinuke: 1
dims: {labels: 2}
axes: {batch: 1..8, samples: 100..4000}
inputs: {input_values: "float[batch, samples]", sample_mask: "bool[batch, samples]"}
nodes:
  mel: {use: audio.logmel, in: {input_values: input_values, mask: sample_mask}, with: {mels: 8, rate: 1000}}
  C: {use: head.classification, in: mel, with: {d_model: 8, classes: "${labels + 1}"}}
outputs: {logits: C, mask: mel.mask}
"""


@pytest.fixture
def spoken(tones: Path) -> Path:
    for name in ("train", "test"):
        rows = [json.loads(line) for line in (tones / f"{name}.jsonl").read_text().splitlines()]
        said = [{**row, "said": f"{row['pitch']} low"} for row in rows]
        (tones / f"{name}.jsonl").write_text("\n".join(map(json.dumps, said)) + "\n")
    (tones / "recipe.yaml").write_text(SPOKEN)
    (tones / "spoken.yaml").write_text(SPOKEN_GRAPH)
    return tones


def test_labels_in_order_are_learnt_and_rows_of_too_few_frames_are_counted(spoken: Path) -> None:
    records = start(spoken, "run")
    assert all(math.isfinite(record["loss"]) and record["unaligned"] == 0 for record in records if "loss" in record)
    assert records[-1]["validation_loss"] > 0
    file = spoken / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("\n".join(json.dumps({**row, "said": ["low", "low"] * 300}) for row in rows) + "\n")
    records = start(spoken, "short", "rows.fields.labels={name: classes, column: said, classes: [high, low]}")
    assert [(record["loss"], record["unaligned"]) for record in records if "loss" in record] == [(0, 4)] * 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("graph.set.labels=3", "loss tells 4 classes apart, one of them the blank, but the rows have 2 classes"),
        ("objective.blank=0", "loss has the blank 0, which is the number of a class"),
    ],
)
def test_the_blank_is_one_class_more_than_the_rows_have(spoken: Path, override: str, message: str) -> None:
    with pytest.raises(AtinukeError, match=message):
        start(spoken, "run", override)


def test_what_training_left_out_is_not_in_the_model(tones: Path) -> None:
    nodes, outputs = dump(open_graph("audio-encoder").graph).split("\noutputs: {")
    head = "  score: {use: head.regression, in: pool, with: {d_model: $d_model}}"
    graph = f"{nodes}\n{head}\noutputs: {{score: score, {outputs}"
    (tones / "two-heads.yaml").write_text(graph)
    start(tones, "run", "graph.use=two-heads.yaml", "steps=3")
    run = open_model(tones / "run")
    assert set(run.checked.body.outputs) == {"logits", "last_hidden_state"}
    assert run.model(torch.zeros(1, 400)).logits.shape == (1, 2)


def test_half_a_pair_is_never_trained(tones: Path) -> None:
    fields = (
        "{pixel_values: {name: image, column: sound, size: [16, 16], optional: true, mask: attention_mask}, "
        "input_ids: {name: text, column: pitch, length: 8}}"
    )
    overrides = ("graph={use: clip}", "objective={name: contrastive, pair: [image_embeds, text_embeds]}")
    with pytest.raises(AtinukeError, match="needs rows that have everything, but `pixel_values` is optional"):
        start(tones, "run", *overrides, f"rows.fields={fields}")


def test_classes_keep_their_numbers_whatever_becomes_of_the_rows(tones: Path) -> None:
    start(tones, "run", "steps=3")
    kept = load_recipe(tones / "run" / "recipe.yaml").rows
    assert kept is not None
    label = kept.fields["labels"]
    assert isinstance(label, Class)
    assert label.classes == ("high", "low")
