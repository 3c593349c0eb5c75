"""Evaluations of a task as `evaluate_task` wrote them, read to be compared: `evaluation.json` names the task and the
kind of each score, `items.jsonl` has what each item brings to each. So neither task nor run is needed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atinuke.core.errors import AtinukeError, Place, fail
from atinuke.core.files import is_file, is_folder
from atinuke.pipelines import text
from atinuke.pipelines.scores.score import Score

EVALUATION, ITEMS = "evaluation.json", "items.jsonl"


@dataclass(frozen=True)
class Evaluated:
    """What each of the `ids` brings to each score, in their order, and the group that it hangs together with; "" is
    none. `folder` is where it stands, and `data` are the files that it was measured on, with their SHA-256."""

    folder: Path
    task: str
    data: Mapping[str, str]
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    scores: tuple[Score, ...]

    def numbers(self) -> NDArray[np.int64]:
        """The groups numbered, `[n]`; an item without a group is one by itself."""
        known: dict[tuple[str, str], int] = {}
        both = zip(self.ids, self.groups, strict=True)
        keys = [("group", group) if group else ("item", name) for name, group in both]
        return np.array([known.setdefault(key, len(known)) for key in keys], np.int64)


def find(path: Path) -> list[Evaluated]:
    """The evaluations at or below a folder, one a seed, all in the order of the first. Those without scores, of files
    that do not say what is right, are left out where there are others.

    Raises:
        AtinukeError: there is none, one cannot be read, or they are not of the same items.
    """
    files = sorted(path.rglob(ITEMS)) if is_folder(path) else []
    folders = [file.parent for file in files if is_file(file.parent / EVALUATION)]
    if not folders:
        fix = "make one: atinuke evaluate RUN --task TASK"
        raise fail("holds no evaluation of a task", f"that is {EVALUATION} and {ITEMS}", where=str(path), fix=fix)
    scored = [folder for folder in folders if _heading(folder / EVALUATION)[2]]
    first = read((scored or folders)[0])
    return [first, *(aligned(first, read(folder)) for folder in scored[1:])]


def read(folder: Path) -> Evaluated:
    """The evaluation in a folder.

    Raises:
        AtinukeError: it is unreadable or none, has no scores, or an id is there twice.
    """
    task, data, kinds = _heading(folder / EVALUATION)
    if not kinds:
        fix = "evaluate on files that say what is right, or name another evaluation"
        raise fail("has no scores", where=str(folder / EVALUATION), fix=fix)
    file = folder / ITEMS
    ids: dict[str, Place] = {}
    groups: list[str] = []
    brought: dict[str, list[list[float]]] = {name: [] for name in kinds}
    for where, values in text.objects(file):
        name, group, scores = values.get("id"), values.get("group", ""), values.get("scores")
        if not isinstance(name, str) or not isinstance(group, str) or not isinstance(scores, dict):
            raise fail("is no item", f"expected id, group and scores, got {', '.join(values)}", where=where)
        if name in ids:
            raise fail(f"has the id {name!r} twice", f"also in line {ids[name].line}", where=where)
        if set(scores) != set(kinds):
            raise fail("has other scores", f"expected {', '.join(kinds)}, got {', '.join(scores)}", where=where)
        for score, row in scores.items():
            width = len(brought[score][0]) if brought[score] else None
            if not isinstance(row, list) or not row or not all(type(one) in (int, float) for one in row):
                raise fail(f"the score {score} is no list of numbers", f"got {row!r:.80}", where=where)
            if width not in (None, len(row)):
                raise fail(f"the score {score} has {len(row)} numbers, where others have {width}", where=where)
            brought[score].append(row)
        ids[name] = where
        groups.append(group)
    if not ids:
        raise fail("has no items", where=str(file))
    try:
        found = tuple(Score(name, kind, np.array(brought[name], np.float64)) for name, kind in kinds.items())
    except AtinukeError as error:
        raise fail(error.mistakes[0].what, *error.mistakes[0].details, where=str(file)) from None
    return Evaluated(folder, task, data, tuple(ids), tuple(groups), found)


def aligned(first: Evaluated, other: Evaluated) -> Evaluated:
    """The other evaluation with items and scores in the order of the first.

    Raises:
        AtinukeError: it is of another task, of other items, groups or scores.
    """
    where = str(other.folder)
    against = f"compared with {first.folder}"
    sides = (first, other)
    kinds = [{score.name: score.kind for score in side.scores} for side in sides]
    groups = [dict(zip(side.ids, side.groups, strict=True)) for side in sides]
    tasks = [{side.task: ""} for side in sides]
    told = ("is of another task", "has other scores", "has other items")
    for what, (a, b) in zip(told, (tasks, kinds, groups), strict=True):
        if a != b:
            raise fail(
                what, against, *_unlike(a, b), where=where, fix="name two of the same files: RUN/evaluations/TASK/FILE"
            )
    places = {name: i for i, name in enumerate(other.ids)}
    order = [places[name] for name in first.ids]
    by_name = {score.name: score for score in other.scores}
    scores = tuple(Score(one.name, one.kind, by_name[one.name].rows[order]) for one in first.scores)
    return Evaluated(other.folder, other.task, other.data, first.ids, first.groups, scores)


def _unlike(a: dict[str, str], b: dict[str, str]) -> Sequence[str]:
    """What is in one only, or differs."""
    lines = []
    for what, one, less in (("only there", a, b), ("only here", b, a)):
        alone = [name for name in one if name not in less]
        if alone:
            lines.append(f"{what}: {alone[0]!r}" + (f" and {len(alone) - 1:,} more" if len(alone) > 1 else ""))
    differs = next((name for name in a if name in b and a[name] != b[name]), None)
    return [*lines, f"{differs!r} is {a[differs]!r} there, {b[differs]!r} here"] if differs is not None else lines


def _heading(file: Path) -> tuple[str, dict[str, str], dict[str, str]]:
    """The name of the task, the files that it was measured on, and the kind of each score."""
    try:
        told: Any = json.loads("".join(text.lines(file)))
        task, data, scores = told["task"]["name"], dict(told["data"]), told["scores"]
        kinds = {str(name): str(score["kind"]) for name, score in scores.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        expected = "expected what `atinuke evaluate` writes: the task, its data and its scores"
        raise fail("is no evaluation of a task", expected, where=str(file), fix="evaluate it again") from None
    return str(task), data, kinds
