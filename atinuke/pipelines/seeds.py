"""Runs that differ in their seed as one result: the mean of their scores, with an interval over items and seeds; and
where GLUE's nine tasks are all there, its average."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from atinuke.core.errors import fail
from atinuke.core.files import replacing
from atinuke.pipelines import checkpoint
from atinuke.pipelines.evaluate_task import Scored, evaluate_task, plain
from atinuke.pipelines.evaluations import Evaluated, aligned, read
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.run import newest_checkpoint
from atinuke.pipelines.scores import glue
from atinuke.pipelines.significance import bootstrap
from atinuke.pipelines.train import GRAPH, RECIPE

SUMMARY = "summary.json"
PARTS = {"mnli": 2}  # GLUE's files of a task that are measured apart


@dataclass(frozen=True)
class Seeds:
    """What the runs in `folders` score on the same `items` of `data`, files with their SHA-256."""

    task: str
    data: Mapping[str, str]
    folders: tuple[Path, ...]
    items: int
    scores: tuple[Scored, ...]


@dataclass(frozen=True)
class Summary:
    """The results of all tasks, and GLUE's average, 0 to 1, where the nine tasks are among them."""

    results: tuple[Seeds, ...]
    glue: float | None

    def json(self) -> dict[str, Any]:
        """Plain data; what is not a number is null."""
        told = [
            {
                "task": one.task,
                "data": dict(one.data),
                "runs": list(map(str, one.folders)),
                "items": one.items,
                "scores": plain(one.scores),
            }
            for one in self.results
        ]
        return {"results": told, "glue": self.glue}


def runs_in(folder: Path) -> list[Path]:
    """The runs below a folder that is none itself."""
    if not folder.is_dir():
        return []
    inner = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    return [run for one in inner for run in ([one] if _is_run(one) else runs_in(one))]


def _is_run(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (RECIPE, GRAPH))  # a recipe may lie anywhere


def evaluate_runs(
    folder: Path,
    task: str | None = None,
    data: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    *,
    console: Console | None = None,
) -> Summary:
    """Measures every run below a folder as `evaluate_task` does, and writes `summary.json` there. Runs of one task on
    the same files are seeds of one result, whatever their recipes say.

    Raises:
        AtinukeError: there is no run, one has not made all its steps or cannot be measured, or its files do not say
            what is right.
    """
    runs = runs_in(folder)
    if not runs:
        raise fail("holds no runs", where=str(folder), fix="name a run, or a folder of runs")
    for run in runs:
        _require_finished(run)  # before the first is measured
    found = [read(evaluate_task(run, task, data, overrides, console=console).folder) for run in runs]
    groups: dict[tuple[str, tuple[str, ...]], list[Evaluated]] = {}
    for one in found:
        groups.setdefault((one.task, tuple(sorted(one.data.values()))), []).append(one)
    results = tuple(_together(same) for same in groups.values())
    summary = Summary(results, _average(results))
    with replacing(folder / SUMMARY) as draft:
        told = json.dumps(summary.json(), indent=2, ensure_ascii=False, allow_nan=False)
        draft.write_text(told + "\n", encoding="utf-8")
    return summary


def _require_finished(run: Path) -> None:
    step, steps = checkpoint.step_of(newest_checkpoint(run)), load_recipe(run / RECIPE).steps
    if step < steps:
        fix = f"go on with `atinuke resume {run}`, or move it elsewhere"
        raise fail(f"stands at step {step:,} of {steps:,}, and is no seed of a finished run", where=str(run), fix=fix)


def _together(same: Sequence[Evaluated]) -> Seeds:
    first = same[0]
    runs = [first, *(aligned(first, other) for other in same[1:])]
    scores = [
        Scored(score.name, score.kind, bootstrap([one.scores[i] for one in runs], first.numbers()))
        for i, score in enumerate(first.scores)
    ]
    return Seeds(first.task, first.data, tuple(one.folder for one in runs), len(first.ids), tuple(scores))


def _average(results: Sequence[Seeds]) -> float | None:
    values: dict[str, list[float]] = {}
    files: dict[str, int] = {}
    for one in results:
        wanted = glue.METRICS.get(one.task, ())
        values.setdefault(one.task, []).extend(s.interval.value for s in one.scores if s.name in wanted)
        files[one.task] = files.get(one.task, 0) + 1
    whole = all(1 <= files.get(task, 0) <= PARTS.get(task, 1) for task in glue.AVERAGED)
    return glue.average(values) if whole else None
