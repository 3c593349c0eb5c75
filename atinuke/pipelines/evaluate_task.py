"""Measures a run or a model folder on the files of a task: scores with intervals, slices, and predictions.

evaluation.json    scores of all items and of each slice, with the task's settings and the hashes of the files
items.jsonl        an item a line: its prediction, and what it brings to each score
predictions of the task's official format, such as `predictions.json` or `SST-2.tsv`
"""

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.pipelines import text
from atinuke.pipelines.answers import numbers
from atinuke.pipelines.asked import find_asked
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.evaluations import EVALUATION, ITEMS
from atinuke.pipelines.feed_rows import require_sizes
from atinuke.pipelines.feed_task import TEXT, Windows, load_items, open_windows, require_room
from atinuke.pipelines.run import Trained, open_model
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.significance import Interval, bootstrap
from atinuke.pipelines.task import Item, Task, Untrained
from atinuke.pipelines.train import TOKENIZER
from atinuke.pipelines.validation import answer

EVALUATIONS = "evaluations"
LABEL = "label"
GROUP = 32  # windows of a pretrained model that go through it together
DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Scored:
    """A score with its interval; `kind` is one of `scores.score.KINDS`."""

    name: str
    kind: str
    interval: Interval


@dataclass(frozen=True)
class Slice:
    """The items whose `by` is `value`: how many they are, and their scores."""

    by: str
    value: str
    items: int
    scores: tuple[Scored, ...]


@dataclass(frozen=True)
class TaskEvaluation:
    """What a run scores on the `items` of `data`, files with their SHA-256; `step` is that of its weights.

    There are no scores where the files do not say what is right. `folder` is where it was written, and `predictions`
    the names of the files there that have them.
    """

    run: str
    step: str
    task: Task
    data: Mapping[str, str]
    items: int
    scores: tuple[Scored, ...]
    slices: tuple[Slice, ...]
    folder: Path
    predictions: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """Plain data; what is not a number is null."""
        slices: dict[str, dict[str, Any]] = {}
        for one in self.slices:
            slices.setdefault(one.by, {})[one.value] = {"items": one.items, "scores": plain(one.scores)}
        told = {"run": self.run, "step": self.step, "task": self.task.model_dump(mode="json"), "data": dict(self.data)}
        found = {"items": self.items, "scores": plain(self.scores), "slices": slices}
        return {**told, **found, "predictions": list(self.predictions)}


def evaluate_task(
    folder: Path,
    task: str | None = None,
    data: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    *,
    output: Path | None = None,
    console: Console | None = None,
) -> TaskEvaluation:
    """Measures the run in a folder by its task, or by another with the same answers, on the files `data`, or else on
    those of the recipe's `validation`; `overrides` may change the settings of the task. A task that trains nothing may
    be asked of any run or model folder, and one whose head has no weights of any model folder.

    Writes the folder `output`, or else `evaluations/TASK/FILE` in that of the run, whole or not at all.

    Raises:
        AtinukeError: there is no trained run of a task, the other task has other answers, the files are wrong, or the
            model gives what is no number.
    """
    console = console or Console(stderr=True)
    run = open_model(folder)
    asked, run = find_asked(run, folder, task, data, overrides)
    items: Sequence[Item]
    if isinstance(asked, Untrained):
        items = load_items(asked, asked.validation)
        predictions = asked.predict(run, folder, items, console)
    else:
        texts = Texts.load(folder / TOKENIZER)
        require_room(run.checked, texts)
        windows = open_windows(asked, asked.validation, texts, run.checked, console, gold=False)
        items, predictions = windows.items, _predict(run, asked, windows, console)
    where = output or folder / EVALUATIONS / asked.name.replace(":", "-") / _stem(text.find(asked.validation))
    official = asked.files(items, predictions)
    return _measured((str(folder), run.step), asked, items, predictions, where, official)


def evaluate_predictions(file: Path, task: str, data: Sequence[Path], *, output: Path | None = None) -> TaskEvaluation:
    """Measures predictions that anybody made, in the task's official format, against the files `data`.

    Writes the folder `output`, or else one beside the file, called like it with `-evaluation`.

    Raises:
        AtinukeError: a file is not of the format, has no answers, or the ids of the two are others.
    """
    if not data:
        raise fail("there is nothing to measure it on", where=str(file), fix="name a file: --data FILE")
    asked = Task.named(task).model_validate({"name": task, "validation": [str(one.resolve()) for one in data]})
    items = [item for one in text.find(asked.validation) for item in asked.load(one)]
    for item in items:
        if item.gold is None:
            raise fail("does not say what is right", where=item.where, fix=f"name a file with {asked.told_by}")
    where = output or file.with_name(file.name.removesuffix(".gz").rpartition(".")[0] + "-evaluation")
    return _measured((str(file), ""), asked, items, asked.predictions(file, items), where, {})


def _measured(
    run: tuple[str, str],
    asked: Task,
    items: Sequence[Item],
    predictions: Sequence[Any],
    folder: Path,
    official: Mapping[str, str],
) -> TaskEvaluation:
    """Scores the predictions of a run and step, and writes all of it."""
    known = all(item.gold is not None for item in items)
    scores = asked.score(items, predictions) if known else ()
    files = {str(file): text.fingerprint(file) for file in text.find(asked.validation)}
    slices = _slices(items, scores)
    found = TaskEvaluation(
        *run, asked, files, len(items), scored(scores, _groups(items)), slices, folder, tuple(official)
    )
    _write(found, {**official, ITEMS: _lines(items, predictions, scores)})
    return found


def _predict(run: Trained, task: Task, windows: Windows, console: Console) -> list[Any]:
    """The predictions of all items. Windows of similar length go through the model together."""
    order = np.argsort(-windows.lengths, kind="stable")
    size = run.made.batch if run.made else GROUP
    found: dict[int, dict[str, NDArray[Any]]] = {}
    axes = _sequences(run.checked)
    for start in track(range(0, len(order), size), "measuring", console=console, transient=True):
        indices = order[start : start + size].tolist()
        batch = windows.batch(indices)
        require_sizes(run.checked, batch)
        output = answer(run, batch)
        arrays = {name: numbers(getattr(output, name), name) for name in axes}
        for row, index in enumerate(indices):
            length = int(windows.lengths[index])
            found[index] = {name: array[row][:length] if axes[name] else array[row] for name, array in arrays.items()}
    starts = np.searchsorted(windows.owners, np.arange(len(windows.items) + 1))
    decoded = [
        task.decode(item, windows.windows[first:last], [found[index] for index in range(first, last)])
        for item, first, last in zip(windows.items, starts[:-1], starts[1:], strict=True)
    ]
    return task.settle(windows.items, decoded)


def _sequences(checked: CheckedGraph) -> dict[str, bool]:
    """The outputs, and whether their second axis is that of the tokens."""
    length = checked.body.inputs[TEXT].shape[1]
    return {n: len(given.shape) > 1 and given.shape[1] == length for n, given in checked.body.outputs.items()}


def _groups(items: Sequence[Item]) -> NDArray[np.int64] | None:
    """Numbers of the groups that hang together; None where each item stands by itself."""
    if not any(item.group for item in items):
        return None
    names: dict[str, int] = {}
    return np.array([names.setdefault(item.group or f"\0{item.id}", len(names)) for item in items])


def scored(scores: Sequence[Score], groups: NDArray[np.int64] | None) -> tuple[Scored, ...]:
    """Scores with their intervals over items, or over groups of them."""
    return tuple(Scored(score.name, score.kind, bootstrap([score], groups)) for score in scores)


def _slices(items: Sequence[Item], scores: Sequence[Score]) -> tuple[Slice, ...]:
    """Each value of each kind of slice. Where all items have one label, only a share of right answers means much."""
    members: dict[tuple[str, str], list[int]] = {}
    for number, item in enumerate(items if scores else ()):
        for by, value in item.slices.items():
            members.setdefault((by, value), []).append(number)
    found: list[Slice] = []
    for (by, value), places in members.items():
        part = [items[place] for place in places]
        shown = [replace(one, rows=one.rows[places]) for one in scores if by != LABEL or one.kind == "mean"]
        found.append(Slice(by, value, len(places), scored(shown, _groups(part))))
    return tuple(sorted(found, key=lambda one: (one.by, [int(part) for part in DIGITS.findall(one.value)], one.value)))


def _stem(files: Sequence[Path]) -> str:
    more = f"-and-{len(files) - 1}-more" if len(files) > 1 else ""
    return files[0].name.removesuffix(".gz").rpartition(".")[0] + more


def _lines(items: Sequence[Item], predictions: Sequence[Any], scores: Sequence[Score]) -> str:
    lines = []
    for number, (item, prediction) in enumerate(zip(items, predictions, strict=True)):
        group = {"group": item.group} if item.group else {}
        brought = {score.name: score.rows[number].tolist() for score in scores}
        lines.append(json.dumps({"id": item.id, **group, "prediction": prediction, "scores": brought}))
    return "".join(f"{line}\n" for line in lines)


def _write(found: TaskEvaluation, files: Mapping[str, str]) -> None:
    """The folder, in place of one that was there."""
    folder = found.folder
    if folder.exists() and not (folder / EVALUATION).is_file():
        raise fail("is there already, and is no evaluation", where=str(folder), fix="name another by --output")
    draft, gone = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
    told = json.dumps(found.json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        for left in (draft, gone):
            shutil.rmtree(left, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, content in {**files, EVALUATION: told}.items():
            (draft / name).write_text(content, encoding="utf-8", newline="\n")
        if folder.exists():
            folder.rename(gone)
        draft.rename(folder)
    except OSError as error:
        raise fail(f"cannot be written: {error.strerror or error}", where=str(folder)) from None
    finally:
        for left in (draft, gone):
            shutil.rmtree(left, ignore_errors=True)


def plain(scores: Sequence[Scored]) -> dict[str, Any]:
    """Scores as plain data, by name; what is not a number is null."""

    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        one.name: {
            "value": number(one.interval.value),
            "low": number(one.interval.low),
            "high": number(one.interval.high),
            "units": one.interval.units,
            "runs": one.interval.runs,
            "kind": one.kind,
        }
        for one in scores
    }
