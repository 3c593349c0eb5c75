"""Objectives whose labels are tokens: what becomes of a batch, and that nothing but what is predicted counts."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor

from atinuke.compile.front import check_graph
from atinuke.compile.module import build
from atinuke.core.errors import AtinukeError
from atinuke.core.spec import loads
from atinuke.pipelines import log, train
from atinuke.pipelines.collate import collate
from atinuke.pipelines.fields import Text
from atinuke.pipelines.generate import generate
from atinuke.pipelines.objective import Making
from atinuke.pipelines.objective_text import Causal, Seq2Seq
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.run import open_run
from atinuke.pipelines.sampler import Batch
from atinuke.pipelines.sampling import Settings
from tests.pipelines.corpora import TEXTS, trained

END = trained().end_of_text
SEQ2SEQ = Seq2Seq(name="seq2seq")
WORDS = [word for word in TEXTS[0].split() if word.isalpha()][:60]
TOKENS = st.lists(st.integers(1, 99), min_size=1, max_size=6)

CAPTIONS = """
atinuke: 1
dims: {d_model: 16, vocab_size: 1000}
axes: {batch: 1..32, source: 1..40, sequence: 1..12}
inputs: {source_ids: "int64[batch, source]", source_mask: "bool[batch, source]", input_ids: "int64[batch, sequence]"}
nodes:
  S: {use: text.embedding, in: source_ids, with: {vocab_size: $vocab_size, d_model: $d_model}}
  E: {use: text.embedding, in: input_ids, with: {vocab_size: $vocab_size, d_model: $d_model}}
  P: {use: position.learned, in: E, with: {d_model: $d_model, length: 12}}
  H: {use: attention.self, in: P, with: {d_model: $d_model, heads: 2, causal: true}}
  add1: {use: add, in: [P, H]}
  X:
    use: attention.cross
    in: {x: add1, memory: S, mask: source_mask}
    with: {d_model: $d_model, memory_dim: $d_model, heads: 2}
  add2: {use: add, in: [add1, X]}
  O: {use: head.vocabulary, in: add2, with: {d_model: $d_model, vocab_size: $vocab_size}}
outputs: {logits: O}
"""


def making(*inputs: str, training: bool = True) -> Making:
    return Making(frozenset(inputs), {"input_ids": "input_ids_mask"}, trained(), 7, training)


def batch_of(rows: list[list[int] | None]) -> Batch:
    import numpy as np

    field = Text(column="c", length=99, optional=True)
    values = [None if row is None else np.array(row, np.int64) for row in rows]
    return collate([{"input_ids": value} for value in values], {"input_ids": field})


@given(st.lists(st.none() | TOKENS, min_size=1, max_size=5), st.booleans())
def test_a_text_begins_and_ends_with_the_end_of_text(rows: list[list[int] | None], masked: bool) -> None:
    inputs = ("input_ids", "labels", *(["input_ids_mask"] if masked else []))
    made = SEQ2SEQ.batch(batch_of(rows), range(len(rows)), making(*inputs))
    assert set(made) == set(inputs)
    width = 1 + max(1, *(len(row or []) for row in rows))
    for number, row in enumerate(rows):
        tokens, filling = row or [], [0] * (width - 1 - len(row or []))
        assert made["input_ids"][number].tolist() == [END, *tokens, *filling]
        labels = [] if row is None else [*tokens, END]
        assert made["labels"][number].tolist() == labels + [-100] * (width - len(labels))
        if masked:
            assert made["input_ids_mask"][number].tolist() == [place < len(labels) for place in range(width)]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_padding_does_not_count(smoothing: float) -> None:
    """The loss of a batch is the mean over all target tokens of the rows alone, without padding."""
    checked = check_graph(loads(CAPTIONS))
    objective = Seq2Seq(name="seq2seq", smoothing=smoothing)
    torch.manual_seed(0)
    module = build(objective.trained(checked)).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    rows: list[list[int] | None] = [[5, 6, 7, 8], [9], None, [1, 2]]
    source = {"source_ids": torch.randint(256, (4, 3)), "source_mask": torch.ones(4, 3, dtype=torch.bool)}

    def loss(picked: list[int]) -> Tensor:
        made = objective.batch(batch_of([rows[number] for number in picked]), picked, making())
        return module(**{name: tensor[picked] for name, tensor in source.items()}, **made).loss

    alone = loss([0]) * 5 + loss([1]) * 2 + loss([3]) * 3
    torch.testing.assert_close(loss([0, 1, 2, 3]), alone / 10, rtol=1e-12, atol=1e-12)
    assert loss([2]) == 0


RECIPE = """
graph: {use: captions.yaml}
rows:
  train: {name: manifest, files: [train.jsonl]}
  validation: {name: manifest, files: [train.jsonl]}
  fields:
    source_ids: {name: text, column: word, length: 40}
    input_ids: {name: text, column: word, length: 11}
tokenizer: {file: tokenizer.json}
objective: {name: seq2seq, smoothing: 0.1}
optimiser: {name: adamw, lr: 1e-2}
schedule: {name: cosine, warmup: 2}
steps: 6
batch: 8
evaluate_every: 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = (json.dumps({"word": word}) + "\n" for word in WORDS)
    (tmp_path / "train.jsonl").write_text("".join(rows))
    (tmp_path / "captions.yaml").write_text(CAPTIONS)
    trained().save(tmp_path / "tokenizer.json")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("source_ids: {", "source_ids: {mask: source_mask, "))
    return tmp_path


def start(folder: Path, name: str, *overrides: str) -> list[dict[str, float]]:
    train.start(load_recipe(folder / "recipe.yaml", overrides), folder / name, Console(quiet=True))
    return log.read(folder / name / "log.jsonl")


ONE_TEXT = (
    "graph={use: atinuke, set: {vocab_size: 1000, d_model: 16, heads: 2, layers: 1, dropout: 0}}",
    "rows.fields={input_ids: {name: text, column: word, length: 11}}",
)


def test_targets_are_learnt_and_counted_as_tokens(folder: Path) -> None:
    records = start(folder, "run")
    assert records[0]["tokens_per_second"] > 0
    checks = [record["validation_loss"] for record in records if "validation_loss" in record]
    assert checks[-1] < checks[0]
    assert "perplexity" not in records[-1]


@pytest.mark.parametrize("objective", ["{name: causal}", "{name: seq2seq}"])
def test_a_step_is_the_same_however_its_rows_are_spread(folder: Path, objective: str) -> None:
    """The loss is a mean over tokens, so micro-batches of different numbers of tokens must not count alike."""
    found = []
    for batch, accumulate in ((8, 1), (2, 4)):
        more = (f"batch={batch}", f"accumulate={accumulate}", "steps=3", f"objective={objective}", *ONE_TEXT)
        found.append([record for record in start(folder, f"run{batch}", *more) if "loss" in record])
    whole, parts = found
    assert [record["loss"] for record in parts] == pytest.approx([record["loss"] for record in whole], rel=1e-4)
    assert "perplexity" in log.read(folder / "run8" / "log.jsonl")[-1]


def test_texts_are_written_as_they_were_trained(folder: Path) -> None:
    """Behind an end-of-text token, so that nothing need be said first."""
    start(folder, "run", "objective={name: causal}", *ONE_TEXT)
    run = open_run(folder / "run")
    assert run.begin == (run.tokenizer.end_of_text,)
    settings = Settings(temperature=0, max_new_tokens=1)
    with torch.no_grad():
        first = int(run.model(torch.tensor([[END]])).logits[0, -1].argmax())
    (found,) = generate(run.model, run.tokenizer, [""], settings, run.context, begin=run.begin)
    assert found.tokens == (() if first == END else (first,))
    with pytest.raises(AtinukeError, match="is empty"):
        generate(run.model, run.tokenizer, [""], settings, run.context)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("tokenizer=null",), "`objective` seq2seq needs a `tokenizer`"),
        (("graph.set.vocab_size=999",), "S has room for 999 tokens, but 1,000 are needed"),
        (("rows.fields.input_ids={name: class, column: word}",), "objective seq2seq needs a text field `input_ids`"),
        (("rows=null", "data={train: [x.txt], context: 4}"), "`objective` seq2seq needs `rows`"),
        (("rows.fields.input_ids.length=12",), "`input_ids` may have 13 tokens, but the graph reads at most 12"),
        (("graph.use=encoder",), "no field of the rows feeds the input `segment_ids"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(AtinukeError, match=message):
        start(folder, "run", *overrides)


def test_the_texts_of_data_are_as_they_are() -> None:
    batch = {"input_ids": torch.tensor([[1, 2]]), "labels": torch.tensor([[2, -100]])}
    assert Causal(name="causal").windows(batch, [0], making()) is batch
