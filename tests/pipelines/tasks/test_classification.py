"""Any table whose columns and labels are named: read, trained on, and answered by a run of another task."""

import json
from pathlib import Path

import pytest

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.evaluate_task import evaluate_task
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.task import Item, Task
from atinuke.pipelines.tasks.classification import Classification
from atinuke.pipelines.train import start
from tests.pipelines.tasks.toys import recipe, table

ROWS = [("mood", "tweet"), ("sad", "bad film"), ("happy", "good film"), ("so-so", "film")]
SETTINGS: dict[str, object] = {"texts": ["tweet"], "label": "mood", "labels": ["sad", "happy"], "left_out": ["so-so"]}


def made(**settings: object) -> Classification:
    task = Task.named("classification").model_validate({"name": "classification", **SETTINGS, **settings})
    assert isinstance(task, Classification)
    return task


def told(items: list[Item]) -> list[tuple[object, ...]]:
    return [(item.id, item.given, item.gold) for item in items]


RIGHT = [("0", ("bad film",), 0), ("1", ("good film",), 1)]


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_columns_and_labels_are_those_that_are_named(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"tweets.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps(dict(zip(ROWS[0], row, strict=True))) + "\n" for row in ROWS[1:]))
    else:
        file.write_text("".join(("\t" if kind == "tsv" else ",").join(row) + "\n" for row in ROWS))
    assert told(made().load(file)) == RIGHT


def test_commas_and_line_ends_inside_quotes_belong_to_the_text(tmp_path: Path) -> None:
    file = tmp_path / "tweets.csv"
    file.write_text('mood,tweet\nsad,"bad,\nvery ""bad"""\nhappy,good\n')
    first, second = made().load(file)
    assert (first.given, second.given) == (('bad,\nvery "bad"',), ("good",))
    assert str(second.where) == f"{file}:4"
    file.write_text('mood,tweet\nsad,"bad\n')
    with pytest.raises(AtinukeError, match=r"tweets\.csv:2  is not CSV\n  unexpected end of data"):
        made().load(file)


def test_pairs_ids_and_files_to_be_answered(tmp_path: Path) -> None:
    file = table(tmp_path / "x.tsv", ("key", "a", "b"), ("k7", "one", "two"))
    assert told(made(texts=["a", "b"], id="key").load(file)) == [("k7", ("one", "two"), None)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"labels": ["sad"]}, "at least 2 items"),
        ({"labels": {"sad": "0", "happy": "0"}}, "`labels` calls two labels alike: 0, 0"),
        ({"left_out": ["sad"]}, "`sad` is in `labels` and in `left_out`"),
        ({"label": "tweet"}, "must be different columns"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, object], said: str, tmp_path: Path) -> None:
    file = recipe(tmp_path, {"name": "classification", "train": "x.tsv", **SETTINGS, **settings})
    with pytest.raises(AtinukeError, match=said):
        load_recipe(file)


def test_labels_that_nobody_named(tmp_path: Path) -> None:
    with pytest.raises(AtinukeError, match=r"x\.tsv:4  `so-so` is no label of classification\n  expected: sad, happy"):
        made(left_out=[]).load(table(tmp_path / "x.tsv", *ROWS))
    with pytest.raises(AtinukeError, match=r"x\.tsv:1  has other columns than classification\n  its columns: a, b"):
        made().load(table(tmp_path / "x.tsv", ("a", "b"), ("sad", "bad")))


def test_a_run_of_a_benchmark_answers_a_table_with_the_same_labels(tmp_path: Path) -> None:
    reviews = [("sentence", "label"), ("good film", 1), ("very good", 1), ("bad film", 0), ("very bad", 0)]
    table(tmp_path / "train.tsv", *reviews)
    folder = start(load_recipe(recipe(tmp_path, {"name": "sst2", "train": "train.tsv"})), tmp_path / "run").folder
    tweets = table(tmp_path / "tweets.tsv", *ROWS)
    sets = ["task.texts=[tweet]", "task.label=mood", "task.left_out=[so-so]"]
    found = evaluate_task(folder, "classification", [tweets], [*sets, "task.labels={sad: '0', happy: '1'}"])
    assert {one.name: one.interval.value for one in found.scores} == {"accuracy": 1, "macro f1": 1}
    with pytest.raises(AtinukeError, match="was trained for sst2, and cannot answer classification"):
        evaluate_task(folder, "classification", [tweets], [*sets, "task.labels=[sad, happy]"])
