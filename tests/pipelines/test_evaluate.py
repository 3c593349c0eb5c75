"""Runs of every objective measured on their validation rows, whatever the size of a batch."""

import dataclasses
import json
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from atinuke.core.errors import AtinukeError
from atinuke.pipelines import answers, evaluations, log
from atinuke.pipelines.evaluate import Evaluation, evaluate
from atinuke.pipelines.examples import scan
from atinuke.pipelines.look import look
from atinuke.pipelines.objective_labels import CTC
from atinuke.pipelines.rows import open_rows
from atinuke.pipelines.scores.classes import ClassFigures
from atinuke.pipelines.scores.numbers import NumberFigures
from atinuke.pipelines.scores.retrieval import RetrievalFigures
from atinuke.pipelines.validation import open_validation
from tests.pipelines import senses

QUIET = Console(quiet=True)
OBJECTIVES = ("classification", "regression", "contrastive")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: senses.make(folder / name, name) for name in OBJECTIVES}


def measured(run: Path, **options: object) -> Evaluation:
    return evaluate(run, console=QUIET, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_figures_do_not_depend_on_the_size_of_a_batch(runs: dict[str, Path], objective: str) -> None:
    subsets = objective == "classification"
    one, seven = (measured(runs[objective], batch=size, subsets=subsets) for size in (1, 7))
    if objective == "regression":
        assert dataclasses.astuple(one.figures) == pytest.approx(dataclasses.astuple(seven.figures), rel=1e-5)
    else:
        assert one == seven


def test_classes_are_measured_as_in_training_and_drawn(runs: dict[str, Path]) -> None:
    run = runs["classification"]
    found = measured(run)
    figures = found.figures
    assert isinstance(figures, ClassFigures)
    logged = [row for row in log.read(run / "log.jsonl") if "validation_accuracy" in row][-1]
    assert figures.accuracy.value == pytest.approx(logged["validation_accuracy"], abs=1e-6)
    assert figures.accuracy.value > 0.9  # what is heard is always right
    assert [one.name for one in figures.classes] == ["one", "three", "two"]
    assert np.sum(figures.confusion) == found.rows == 23
    assert Image.open(run / "confusion.png").size > (300, 300)
    told = json.loads((run / "evaluation.json").read_text())
    assert told == json.loads(json.dumps(found.json()))
    assert told["figures"]["accuracy"]["n"] == 23
    assert told["step"] == "step-000060"


def test_labels_may_be_called_otherwise(tmp_path: Path) -> None:
    fields = (
        "{heard: {name: text, column: heard, length: 16, optional: true}, "
        "words: {name: text, column: read, length: 16, optional: true}, "
        "pixel_values: {name: image, column: picture, size: [8, 6], optional: true}, "
        "answer: {name: class, column: word}}"
    )
    run = senses.make(tmp_path, "classification", f"rows.fields={fields}", "objective.labels=answer", "steps=3")
    figures = measured(run).figures
    assert isinstance(figures, ClassFigures)
    assert [one.name for one in figures.classes] == ["one", "three", "two"]
    logged = log.read(run / "log.jsonl")[-1]
    assert figures.accuracy.value == pytest.approx(logged["validation_accuracy"], abs=1e-6)
    assert (figures.accuracy.n, look(run, "C", 1).right) == (23, "one")


def test_all_seven_subsets_are_measured_on_the_rows_that_have_them(runs: dict[str, Path]) -> None:
    run = runs["classification"]
    found = measured(run, subsets=True)
    names = ("heard", "words", "pixel_values")
    assert [one.shown for one in found.subsets] == [some for n in (1, 2, 3) for some in combinations(names, n)]
    lines = [json.loads(line) for line in (run.parent / "test.jsonl").read_text().splitlines()]
    columns = {"heard": "heard", "words": "read", "pixel_values": "picture"}
    for one in found.subsets:
        assert one.accuracy.n == sum(all(line[columns[name]] is not None for name in one.shown) for line in lines)
    accuracy = {one.shown: one.accuracy.value for one in found.subsets}
    assert accuracy["heard",] == 1
    assert accuracy["words",] < 0.9  # three in ten are wrong
    assert len(json.loads((run / "evaluation.json").read_text())["subsets"]) == 7
    assert Image.open(run / "subsets.png").width > 500


def test_a_hidden_field_is_as_good_as_one_that_is_not_there(runs: dict[str, Path], tmp_path: Path) -> None:
    """The accuracy of the subset is that of rows which lack the fields to begin with."""
    run = runs["classification"]
    lines = [json.loads(line) for line in (run.parent / "test.jsonl").read_text().splitlines()]
    only = [{**line, "heard": None, "picture": None} for line in lines if line["read"]]
    keep = {**lines[0], "word": None}  # else no row would have the columns
    (tmp_path / "only.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*only, keep]))
    alone = evaluate(
        run,
        [f"rows.validation.files=[{tmp_path / 'only.jsonl'}]", "rows.fields.labels.optional=true"],
        console=QUIET,
    ).figures
    (shown,) = (one.accuracy for one in measured(run, subsets=True).subsets if one.shown == ("words",))
    assert isinstance(alone, ClassFigures)
    assert alone.accuracy == shown


def test_numbers_are_measured(runs: dict[str, Path]) -> None:
    figures = measured(runs["regression"]).figures
    assert isinstance(figures, NumberFigures)
    assert figures.rmse < figures.spread / 2
    assert figures.pearson > 0.9
    assert figures.n == 23


def test_pairs_find_each_other_by_what_they_hold(runs: dict[str, Path]) -> None:
    """23 rows, but only three texts and three pictures: each is one thing."""
    figures = measured(runs["contrastive"]).figures
    assert isinstance(figures, RetrievalFigures)
    assert (figures.there.queries, figures.there.candidates, figures.pairs) == (3, 3, 23)
    assert figures.there.recalls[1].found.value == figures.there.recalls[1].chance == 1


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_rows_are_items_that_can_be_compared(runs: dict[str, Path], objective: str) -> None:
    """What rows bring to scores gives the figures again."""
    found = measured(runs[objective])
    items = evaluations.read(runs[objective])
    assert (items.task, len(items.ids)) == (objective, 23)
    values = {score.name: score.value for score in items.scores}
    assert values == pytest.approx({one.name: one.interval.value for one in found.scores})
    match found.figures:
        case ClassFigures() as figures:
            assert values == {"accuracy": pytest.approx(figures.accuracy.value)}
        case NumberFigures() as figures:
            wanted = {"pearson": figures.pearson, "spearman": figures.spearman, "absolute error": figures.mae}
            assert values == pytest.approx(wanted)
        case RetrievalFigures() as figures:
            for where, side in (("", figures.there), (" back", figures.back)):
                assert [values[f"recall@{one.at}{where}"] for one in side.recalls] == [
                    one.found.value for one in side.recalls
                ]


class Output(NamedTuple):
    logits: Tensor
    mask: Tensor


@pytest.mark.parametrize("blank", [0, 3])
def test_ctc_is_read_in_both_ways(blank: int) -> None:
    """The frames spell 1 1 - 1 2, of which the mask hides the 2; the second row is hard to read."""
    one, two = (1, 2) if blank == 3 else (2, 3)
    frames = torch.tensor([[one, one, blank, one, two], [two, blank, blank, blank, blank]])
    scores = torch.nn.functional.one_hot(frames, 4).float() * 9
    mask = torch.tensor([[True, True, True, True, False], [True] * 5])
    objective = CTC(name="ctc", scores="logits", mask="mask", blank=blank)
    examples = [{"labels": np.array([one, one])}, {"labels": np.array([two, one, -100])}]
    names = ("a", "b", "c", "d")
    found = answers.read(objective, names, 4, [(examples, Output(scores, mask))])
    greedy, searched = found.figures
    assert (greedy.way, searched.way) == ("greedy", "4 beams")
    assert (greedy.error_rate, greedy.deletions, greedy.whole.value) == (1 / 4, 1, 1 / 2)
    assert searched.error_rate == found.scores[0].value == 1 / 4
    assert found.scores[0].rows.tolist() == [[0, 2], [1, 2]]
    assert greedy.samples[1].read == (names[two],)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(AtinukeError, match="the output `logits` holds what is no number"):
        answers.numbers(torch.tensor([1.0, float("nan")]), "logits")


def test_texts_are_written_by_whoever_generates(runs: dict[str, Path]) -> None:
    """The target is left out of what the writer sees; the texts are those of the rows."""
    held = open_validation(runs["contrastive"], (), QUIET)
    fields = {**held.examples.fields, "input_ids": held.examples.fields["words"]}  # a target like the source
    assert held.data.validation
    held = dataclasses.replace(
        held, examples=scan(open_rows(held.data.validation), fields, held.tokenizer, console=QUIET)
    )
    seen: list[set[str]] = []

    def write(batch: dict[str, Tensor]) -> list[str]:
        seen.append(set(batch))
        return ["ọ̀kan"] * len(batch["words"])

    found = answers.translate(held, write, answers.Way(5, QUIET)).figures
    assert all(names == {"words", "words_mask", "pixel_values"} for names in seen)
    assert found.n == 23
    assert found.copied is not None
    assert found.copied.chrf == pytest.approx(100)
    assert 0 < found.model.chrf < 100
    assert found.samples[1].right == found.samples[1].source == "èjì"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=70", "`steps` of a run cannot be changed"),
        ("objective.scores=values", "`objective` of a run cannot be changed"),
        ("rows.validation=null", "has no validation rows"),
        ("rows.validation.files=[/none.jsonl]", "there is no such file"),
        ("rows.fields.words.column=reed", "no row has a column `reed`"),
        ("rows.fields.labels={name: number, column: number}", "input `labels: int64.batch.` does not fit its field"),
        ("rows.fields.labels.classes=[one, two, three, four]", "tells 3 classes apart, but the rows have 4"),
    ],
)
def test_what_cannot_be_measured_is_one_error(runs: dict[str, Path], override: str, message: str) -> None:
    with pytest.raises(AtinukeError, match=message) as caught:
        evaluate(runs["classification"], [override], console=QUIET)
    assert len(caught.value.mistakes) == 1


def test_subsets_need_classes_and_optional_fields(runs: dict[str, Path]) -> None:
    with pytest.raises(AtinukeError, match="subsets are for classification, but the objective of this run is regress"):
        measured(runs["regression"], subsets=True)
    needed = [f"rows.fields.{name}.optional=false" for name in ("heard", "words")]
    with pytest.raises(AtinukeError, match="rows cannot be used"):  # some lack a word
        evaluate(runs["classification"], needed, console=QUIET)
