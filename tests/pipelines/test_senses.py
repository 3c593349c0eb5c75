"""One graph file learns to read, then to hear, then to see, by a swap of its sense alone."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from rich.console import Console

from atinuke.pipelines import checkpoint, log, train
from atinuke.pipelines.recipe import load_recipe

RECIPE = """
graph:
  use: senses
  set: {{rate: 1000, mels: 8, channels: 1, patch: 4, d_model: 16, heads: 2, layers: 1, classes: 2, dropout: 0,
        vocab_size: 256, samples: 100..4000, height: 4..64, width: 4..64}}
  swap: {{{swap}}}
rows:
  train: {{name: manifest, files: [train.jsonl]}}
  fields:
    {field}
    labels: {{name: class, column: height}}
objective: {{name: classification}}
optimiser: {{name: adamw, lr: 1e-2}}
schedule: {{name: cosine, warmup: 2}}
steps: 40
batch: 8
save_every: 40
"""
SENSES = {
    "reads": "input_ids: {name: text, column: word, length: 8, mask: text_mask}",
    "hears": "input_values: {name: audio, column: sound, rate: 1000, multiple: 200, mask: sample_mask}",
    "sees": "pixel_values: {name: image, column: picture, size: [8, 8], channels: 1}",
}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """High and low, as a word, a tone and a bar, each a little different every time."""
    random = np.random.default_rng(0)
    found = []
    for number in range(24):
        high = number % 2
        length = int(random.integers(300, 900))
        wave = np.sin(2 * math.pi * (60, 300)[high] * np.arange(length) / 1000)
        soundfile.write(tmp_path / f"{number}.wav", 0.5 * wave + 0.05 * random.standard_normal(length), 1000)
        pixels = random.integers(0, 60, (8, 8), np.uint8)
        pixels[:4] += np.uint8(150 * high)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        row = {"sound": f"{number}.wav", "picture": f"{number}.png", "word": ("low", "height")[high]}
        found.append(json.dumps({**row, "height": ("low", "high")[high]}))
    (tmp_path / "train.jsonl").write_text("\n".join(found) + "\n")
    return tmp_path


def learn(folder: Path, sense: str, before: str | None) -> tuple[list[float], str]:
    """The losses of a run that begins with the weights of another, and what was said."""
    swap = "" if sense == "reads" else f"sense: {sense}"
    (folder / "recipe.yaml").write_text(RECIPE.format(swap=swap, field=SENSES[sense]))
    shown = io.StringIO()
    console = Console(file=shown, width=1000)
    train.start(load_recipe(folder / "recipe.yaml"), folder / sense, console, folder / before if before else None)
    return [row["loss"] for row in log.read(folder / sense / "log.jsonl") if "loss" in row], shown.getvalue()


def read(run: Path, *nodes: str) -> list[str]:
    """The names of a run's trained tensors that are of these nodes."""
    (found,) = (run / "checkpoints").glob("*/model.safetensors")
    return [name for name in checkpoint.read(found) if name.split(".")[0] in nodes]


def listed(line: str) -> list[str]:
    """The names that a line of the report says."""
    return sorted(line.split(": ")[1].split(", "))


def test_a_swap_of_the_sense_alone_reads_hears_and_sees(rows: Path) -> None:
    before = None
    for sense in SENSES:
        losses, said = learn(rows, sense, before)
        assert sum(losses[-5:]) < 0.3 * sum(losses[:5]), sense
        told = {line.split()[0]: line for line in said.splitlines() if line.startswith(("kept", "dropped", "new"))}
        assert bool(told) == bool(before)
        if before:
            behind = read(rows / sense, "stack", "norm", "O")
            assert told["kept"].startswith(f"kept {len(behind)} tensors: stack.0.")
            assert listed(told["dropped"]) == sorted(read(rows / before, "sense"))
            assert listed(told["new"]) == sorted(read(rows / sense, "sense"))
        before = sense
