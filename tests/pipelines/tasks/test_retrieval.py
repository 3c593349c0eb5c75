"""Pairs of texts: read, kept together in training, and found by the vectors of an encoder as it is, or trained."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import atinuke
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.evaluate_task import evaluate_task
from atinuke.pipelines.feed_task import Together, Windows
from atinuke.pipelines.pretrained.huggingface import convert
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.task import Task
from atinuke.pipelines.tasks.retrieval import Retrieval
from atinuke.pipelines.train import start
from tests.pipelines.tasks.toys import recipe, table, tiny_bert, vocabulary

PAIRS = [
    ("good film", "a b"),
    ("bad film", "c d e"),
    ("very good", "f"),
    ("not on", "g h"),
    ("yes", "i j k"),
    ("no", "l"),
]
SETTINGS: dict[str, object] = {"name": "retrieval", "texts": ["en", "yo"], "length": 12}


def made(**settings: object) -> Retrieval:
    task = Task.named("retrieval").model_validate({**SETTINGS, **settings})
    assert isinstance(task, Retrieval)
    return task


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(folder / "theirs")
    convert(folder / "theirs", folder / "model")
    return folder / "model"


def pairs(folder: Path) -> Path:
    return table(folder / "pairs.tsv", ("en", "yo"), *PAIRS)


def vectors(model: Path, column: int) -> torch.Tensor:
    """The means of MiniLM's kind, one text at a time."""
    texts, opened = Texts.load(model / "tokenizer.json"), atinuke.from_pretrained(model)
    found = []
    for pair in PAIRS:
        ids = torch.tensor([texts.join(texts.pieces(pair[column])).ids.tolist()])
        with torch.no_grad():
            output = opened.model(ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))
        found.append(output.last_hidden_state[0].mean(0))
    return torch.nn.functional.normalize(torch.stack(found), dim=-1)


def test_an_encoder_is_measured_as_it_is(model: Path, tmp_path: Path) -> None:
    found = evaluate_task(model, "retrieval", [pairs(tmp_path)], ["task.texts=[en, yo]"], output=tmp_path / "out")
    scores = vectors(model, 0) @ vectors(model, 1).T
    right = scores.diagonal()
    there, back = (scores >= right[:, None]).sum(1), (scores >= right).sum(0)
    assert len({*there.tolist(), *back.tolist()}) > 2
    values = {one.name: one.interval.value for one in found.scores}
    for where, ranks in (("", there), (" back", back)):
        assert values[f"mrr{where}"] == pytest.approx(float((1 / ranks).mean()))
        assert values[f"recall@1{where}"] == pytest.approx(float((ranks == 1).double().mean()))
        assert values[f"recall@5{where}"] == pytest.approx(float((ranks <= 5).double().mean()))
    items = [json.loads(line)["prediction"] for line in (tmp_path / "out/items.jsonl").read_text().splitlines()]
    assert items == [list(both) for both in zip(there.tolist(), back.tolist(), strict=True)]


def test_a_head_with_weights_has_to_be_trained_before(model: Path, tmp_path: Path) -> None:
    file = table(tmp_path / "dev.tsv", ("sentence", "label"), ("good film", 1))
    what = "a pretrained model cannot answer sst2 before it is trained\n  it has no `task_head.weight`"
    with pytest.raises(AtinukeError, match=what):
        evaluate_task(model, "sst2", [file], output=tmp_path / "out")
    with pytest.raises(AtinukeError, match="there is nothing to measure it on"):
        evaluate_task(model, "retrieval", (), ["task.texts=[en, yo]"])


def test_pairs_are_learnt(model: Path, tmp_path: Path) -> None:
    file = pairs(tmp_path)
    task = {**SETTINGS, "train": str(file), "validation": str(file)}
    changes = {"graph": None, "tokenizer": None, "pretrained": str(model), "steps": 40, "batch": 3}
    folder = start(load_recipe(recipe(tmp_path, task, **changes)), tmp_path / "run").folder
    losses = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert losses[0]["loss"] > 0.5  # which it is not where partners are in other batches
    values = {one.name: one.interval.value for one in evaluate_task(folder).scores}
    assert values["recall@1"] == values["recall@1 back"] == values["mrr"] == 1


def test_a_pair_alone_in_its_batch_would_teach_nothing(tmp_path: Path) -> None:
    with pytest.raises(AtinukeError, match="`batch` must be at least 2: `task` retrieval tells a row from others"):
        load_recipe(recipe(tmp_path, {**SETTINGS, "train": "pairs.tsv"}, batch=1))


def test_both_texts_of_a_pair_are_in_one_batch(tmp_path: Path) -> None:
    task, texts = made(), Texts.load(vocabulary(tmp_path))
    items = task.load(pairs(tmp_path))
    windows = Windows(task, items, texts, frozenset({"input_ids", "labels"}), Console(quiet=True), "")
    together = Together(windows)
    assert len(together) == len(PAIRS)
    assert together.lengths.tolist() == [max(len(one.split()) for one in pair) + 2 for pair in PAIRS]
    batch = together.batch([4, 1])
    written = [texts.join(texts.pieces(text)).ids.tolist() for row in (4, 1) for text in PAIRS[row]]
    assert [[int(one) for one in row if one] for row in batch["input_ids"]] == written
    labels = batch["labels"].tolist()
    assert labels[0] == labels[1] != labels[2] == labels[3]


def test_a_text_that_comes_twice_is_asked_for_once_and_both_partners_are_right(tmp_path: Path) -> None:
    task = made(slices=["domain"])
    rows = [("en", "yo", "domain"), ("yes", "a", "news"), ("yes", "b", "news"), ("no", "c", "book")]
    items = task.load(table(tmp_path / "pairs.tsv", *rows))
    assert [item.slices["domain"] for item in items] == ["news", "news", "book"]
    texts = Texts.load(vocabulary(tmp_path))
    label = [int(window.inputs["labels"]) for item in items for window in task.encode(item, texts)]
    assert label[0] == label[1] == label[2] == label[3] != label[4] == label[5]
    one, other = [1.0, 0.0], [0.0, 2.0]
    found = task.settle(items, [[one, other], [one, [3.0, 0.1]], [other, other]])
    assert found == [[1, 2], [None, 1], [2, 1]]
    values = {score.name: score.value for score in task.score(items, found)}
    assert values["mrr"] == pytest.approx(3 / 4)
    assert values["recall@1 back"] == pytest.approx(2 / 3)
    assert task.settle(items, np.zeros((3, 2, 2)).tolist())[0] == [2, 2]  # what tells nothing apart finds nothing


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(AtinukeError, match=r"x\.tsv:1  has other columns than retrieval\n  its columns: en, fr"):
        made().load(table(tmp_path / "x.tsv", ("en", "fr"), ("a", "b")))
    with pytest.raises(AtinukeError, match=r"x\.tsv:3  has the id `k` twice"):
        made(id="key").load(table(tmp_path / "x.tsv", ("key", "en", "yo"), ("k", "a", "b"), ("k", "c", "d")))
    with pytest.raises(AtinukeError, match=r"x\.tsv:2  has no column `domain`"):
        made(slices=["domain"]).load(table(tmp_path / "x.tsv", ("en", "yo"), ("a", "b")))
