"""A run's own data as inputs for the certificate."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from atinuke.compile.certificate import REAL, Reference
from atinuke.compile.programs import programs
from atinuke.pipelines import train
from atinuke.pipelines.deploy import open_subject
from atinuke.pipelines.real import real_inputs
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.tokenizer import Tokenizer
from tests.pipelines import senses

TEXTS = """
graph: {use: gpt2, set: {d_model: 16, heads: 2, layers: 1, vocab_size: 300, length: 32, batch: 1..8, sequence: 1..32}}
data: {train: [train.txt], validation: [held-out.txt], context: 16}
tokenizer: {vocab_size: 270}
objective: {name: causal}
optimiser: {name: adamw, lr: 1.0e-3}
schedule: {name: cosine, warmup: 0}
batch: 2
steps: 2
"""


def reference(run: Path, *sets: str) -> tuple[Reference, str]:
    subject = open_subject(str(run), sets)
    assert subject.run is not None
    made = programs(subject.checked, subject.model)
    given, said = real_inputs(*subject.run, subject.checked, made)
    return Reference(subject.checked, made, given), said


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return senses.make(tmp_path_factory.mktemp("rows"), "classification", "steps=3")


def test_validation_rows_are_compared(rows: Path) -> None:
    found, said = reference(rows)
    assert said == "2 validation rows"
    (one,) = (planned for planned in found.planned if planned.call.kind == REAL)
    assert one.call.sizes["batch"] == 2
    assert found.kept["forward"][0][0] is one.call


def test_as_many_rows_as_the_axis_allows(rows: Path) -> None:
    found, said = reference(rows, "batch=1..1")
    assert said == "1 validation rows"
    assert any(planned.call.kind == REAL for planned in found.planned)


def test_rows_that_are_gone_are_said_to_be(rows: Path) -> None:
    file = rows.parent / "test.jsonl"
    text = file.read_text(encoding="utf-8")
    file.unlink()
    try:
        found, said = reference(rows)
    finally:
        file.write_text(text, encoding="utf-8")
    assert said.startswith("drawn at random, because the run's own data cannot be used: ")
    assert not any(planned.call.kind == REAL for planned in found.planned)


def test_texts_begin_as_validation_texts_do(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("One word after another, and so on. " * 40)
    (tmp_path / "held-out.txt").write_text("Quite another text, which goes on and on and on.")
    (tmp_path / "recipe.yaml").write_text(TEXTS)
    run = tmp_path / "run"
    train.start(load_recipe(tmp_path / "recipe.yaml"), run, Console(quiet=True))
    found, said = reference(run, "batch=1..1")
    assert said == "the beginnings of 1 validation texts"
    assert found.writing is not None
    tokenizer = Tokenizer.load(run / "tokenizer.json", "<|endoftext|>")
    begins = tokenizer.encode("Quite another text, which goes on and on and on.")[:8]
    assert torch.from_numpy(found.writing.prompts).tolist() == [begins]
    assert found.writing.tokens.shape == (1, 32 - 8)
