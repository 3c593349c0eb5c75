"""Small runs of rows with three senses: two texts and a picture, any of which may be missing."""

import json
from pathlib import Path

import numpy as np
from rich.console import Console

from atinuke.pipelines import train
from atinuke.pipelines.recipe import load_recipe
from tests.pipelines.media import picture

WORDS = {"one": ("ọ̀kan", 1), "two": ("èjì", 2), "three": ("ẹ̀ta", 3)}

FUSED = """
  all: {use: fusion.late, in: {first: hear, second: read, third: see, first_mask: hear.mask, second_mask: read.mask, third_mask: pixel_values_mask}}
"""  # noqa: E501
HEADS = {
    "classification": (
        FUSED + "  C: {use: head.classification, in: all, with: {d_model: $d_model, classes: $classes}}",
        "logits: C",
        "labels: {name: class, column: word}",
    ),
    "regression": (
        FUSED + "  C: {use: head.regression, in: all, with: {d_model: $d_model}}",
        "values: C",
        "labels: {name: number, column: number}",
    ),
    "contrastive": (
        """
  one: {use: head.projection, in: read, with: {d_model: $d_model, projection_dim: 4}}
  two: {use: head.projection, in: see, with: {d_model: $d_model, projection_dim: 4}}
""",
        "read: one, see: two",
        "",
    ),
}
SETTINGS = {
    "classification": "{name: classification}",
    "regression": "{name: regression}",
    "contrastive": "{name: contrastive, pair: [read, see]}",
}
HEARING = (
    "  heard: int64[batch, heard]\n  heard_mask: bool[batch, heard]\n",
    "  E: {use: text.embedding, in: heard, with: {vocab_size: 256, d_model: $d_model}}\n"
    "  hear: {use: pool.mean, in: {x: E, mask: heard_mask}}\n",
)


def graph(objective: str) -> str:
    """The graph for an objective."""
    nodes, outputs, _ = HEADS[objective]
    inputs, hearing = HEARING if "hear" in nodes else ("", "")
    there = "  pixel_values_mask: bool[batch]\n" if "hear" in nodes else ""
    return f"""
atinuke: 1
name: senses
dims: {{d_model: 8, classes: 3}}
axes: {{batch: 1..64, heard: 1..16, words: 1..16}}
inputs:
{inputs}  words: int64[batch, words]
  words_mask: bool[batch, words]
  pixel_values: uint8[batch, 3, 8, 6]
{there}nodes:
{hearing}  W: {{use: text.embedding, in: words, with: {{vocab_size: 256, d_model: $d_model}}}}
  read: {{use: pool.mean, in: {{x: W, mask: words_mask}}}}
  pixels: {{use: vision.normalise, in: pixel_values, with: {{channels: 3}}}}
  V: {{use: vision.patches, in: pixels, with: {{d_model: $d_model, patch: 2}}}}
  see: {{use: pool.mean, in: V}}
{nodes}
outputs: {{{outputs}}}
"""


def recipe(objective: str) -> str:
    optional = "optional: true" if "hear" in HEADS[objective][0] else "optional: false"
    heard = "heard: {name: text, column: heard, length: 16, optional: true}\n    " if "true" in optional else ""
    return f"""
graph: {{use: graph.yaml}}
rows:
  train: {{name: manifest, files: [train.jsonl]}}
  validation: {{name: manifest, files: [test.jsonl]}}
  fields:
    {heard}words: {{name: text, column: read, length: 16, {optional}}}
    pixel_values: {{name: image, column: picture, size: [8, 6], {optional}}}
    {HEADS[objective][2]}
objective: {SETTINGS[objective]}
optimiser: {{name: adamw, lr: 3e-2}}
schedule: {{name: cosine, warmup: 2}}
steps: 60
batch: 8
evaluate_every: 60
save_every: 60
"""


def rows(folder: Path, count: int, seed: int, missing: float) -> str:
    """Rows in which a word is heard well, read badly, and seen in one of three pictures."""
    random = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        at = number % 3
        word, (text, value) = list(WORDS.items())[at]
        wrong = list(WORDS.values())[int(random.integers(3))][0]
        row = {
            "word": word,
            "number": value,
            "heard": word,
            "read": text if random.random() < 0.7 else wrong,
            "picture": str(picture(folder / f"{at}.png", at)),
        }
        gone = random.random(2) < missing  # the word that is heard is always there
        row |= {name: None for name, lost in zip(("read", "picture"), gone, strict=True) if lost}
        lines.append(json.dumps(row))
    return "\n".join(lines) + "\n"


def make(folder: Path, objective: str, *overrides: str) -> Path:
    """A trained run."""
    missing = 0.2 if objective == "classification" else 0.0
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.yaml").write_text(graph(objective))
    (folder / "recipe.yaml").write_text(recipe(objective))
    (folder / "train.jsonl").write_text(rows(folder, 48, 0, missing))
    (folder / "test.jsonl").write_text(rows(folder, 23, 1, missing))
    train.start(load_recipe(folder / "recipe.yaml", overrides), folder / "run", Console(quiet=True))
    return folder / "run"
