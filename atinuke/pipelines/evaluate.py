"""Measures a trained run on its validation rows, by whatever its objective asks for.

Every figure is over all rows at once, and so does not depend on the size of a batch.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from atinuke.core.errors import fail
from atinuke.core.files import replacing
from atinuke.pipelines import answers, charts, given
from atinuke.pipelines.answers import Subset
from atinuke.pipelines.evaluate_task import Scored, plain, scored
from atinuke.pipelines.evaluations import EVALUATION, ITEMS
from atinuke.pipelines.fields import Text
from atinuke.pipelines.objective_labels import CTC, Classification, Contrastive, Regression
from atinuke.pipelines.objective_text import Seq2Seq
from atinuke.pipelines.run import writer
from atinuke.pipelines.scores.classes import ClassFigures
from atinuke.pipelines.scores.numbers import NumberFigures
from atinuke.pipelines.scores.reading import ReadingFigures
from atinuke.pipelines.scores.retrieval import RetrievalFigures
from atinuke.pipelines.scores.translation import TranslationFigures
from atinuke.pipelines.validation import open_validation

CONFUSION, SUBSETS = "confusion.png", "subsets.png"

Figures = ClassFigures | NumberFigures | RetrievalFigures | tuple[ReadingFigures, ...] | TranslationFigures


@dataclass(frozen=True)
class Evaluation:
    """What a run scores on `rows` rows, out of the source `data`; `step` is that of its weights.

    `scores` are figures with an interval. Of CTC there are figures for each way of reading. `subsets` are all sets of
    optional fields, where they were wanted.
    """

    objective: str
    step: str
    data: dict[str, Any]
    rows: int
    figures: Figures
    scores: tuple[Scored, ...] = ()
    subsets: tuple[Subset, ...] = ()

    def json(self) -> dict[str, Any]:
        """Plain data; what is not a number is null. `task` is what `atinuke compare` knows it by."""
        told: dict[str, Any] = _plain(asdict(self))
        return {"task": {"name": self.objective}, **told, "scores": plain(self.scores)}


def evaluate(
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    subsets: bool = False,
    beams: int = 8,
    batch: int | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Measures the run in a folder; `overrides` name other rows: `rows.validation.files=[/other/rows.jsonl]`.

    `subsets` measures classification with every set of optional fields too, the others hidden; `beams` is the width of
    CTC's search; `batch` the number of rows at once, the recipe's unless given. Texts are written greedily, up to the
    `length` of their field in tokens.

    Writes `evaluation.json` into the folder, and `items.jsonl`: what is said for each row, and what it brings to each
    score (of retrieval for each row with both sides), for `atinuke compare`. Of classes it writes `confusion.png`, of
    subsets `subsets.png`.

    Raises:
        AtinukeError: see `open_validation`; the objective has no figures, the model gives what is no number, there are
            no subsets, a library is missing, or a file cannot be written.
    """
    console = console or Console(stderr=True)
    held = open_validation(folder, overrides, console)
    objective = held.run.recipe.objective
    way = answers.Way(batch or held.run.recipe.batch, console)
    name: str = objective.name
    if subsets and not isinstance(objective, Classification):
        raise fail(f"subsets are for classification, but the objective of this run is {name}", where=str(folder))
    told: answers.Answered[Any]
    found: tuple[Subset, ...] = ()
    match objective:
        case Classification():
            told, found = answers.classification(held, objective, subsets, way)
        case Regression():
            told = answers.regression(held, objective, way)
        case Contrastive():
            told = answers.contrastive(held, objective, way)
        case CTC():
            names = answers.classes_of(held, objective.scores, objective.labels)
            told = answers.read(objective, names, beams, answers.answers(held, way))
        case Seq2Seq():
            run, field = writer(held.run, folder), held.examples.fields[answers.TARGET]
            assert isinstance(field, Text)
            told = answers.translate(held, lambda batch: given.answers(run, batch, field.length), way)
        case _:
            raise fail(f"there are no figures for the objective {name}", where=str(folder))
    assert held.data.validation
    data = held.data.validation.model_dump(mode="json")
    scores = scored(told.scores, None)
    evaluation = Evaluation(name, held.run.step, data, len(held.examples), told.figures, scores, found)
    _write(folder, evaluation, told)
    return evaluation


def _write(folder: Path, evaluation: Evaluation, told: answers.Answered[Any]) -> None:
    with replacing(folder / ITEMS) as draft:
        lines = []
        for number, said in enumerate(told.said):
            brought = {score.name: score.rows[number].tolist() for score in told.scores}
            lines.append(json.dumps({"id": str(number + 1), "prediction": said, "scores": brought}))
        draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    with replacing(folder / EVALUATION) as draft:
        text = json.dumps(evaluation.json(), indent=2, ensure_ascii=False, allow_nan=False)
        draft.write_text(text + "\n", encoding="utf-8")
    if isinstance(evaluation.figures, ClassFigures):
        charts.confusion(evaluation.figures, folder / CONFUSION)
    if evaluation.subsets:
        shown = [(" + ".join(subset.shown), subset.accuracy) for subset in evaluation.subsets]
        charts.bars(shown, "accuracy", folder / SUBSETS)


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(part) for name, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case float() if not math.isfinite(value):
            return None
    return value
