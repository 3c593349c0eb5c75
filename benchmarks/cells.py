"""Cells of tables that take hours: runs that are begun once and gone on with, and what was found, a line each."""

import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import yaml
from rich.console import Console

from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.significance import Interval, bootstrap
from atinuke.pipelines.tasks.labelled import Labelled
from atinuke.pipelines.train import RECIPE, resume, start

Cell = TypeVar("Cell")


def trained(recipe: Mapping[str, Any], folder: Path, console: Console, init: Path | None = None) -> float:
    """Trains by a recipe, or goes on where that was interrupted, in a folder; and says how many minutes it took."""
    if (folder / RECIPE).is_file():
        ended = resume(folder, console=console)
    else:
        file = folder.with_name(f"{folder.name}.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(dict(recipe)))
        ended = start(load_recipe(file), folder, console, init)
    if ended.signal:  # what stands half trained is not measured
        sys.exit(128 + ended.signal)
    seconds = (json.loads(line).get("seconds", 0.0) for line in (folder / "log.jsonl").read_text().splitlines())
    return sum(seconds) / 60


def always(task: Labelled, train: Sequence[Path], validation: Path, score: str) -> Interval:
    """What always saying the most frequent label of training scores."""
    items = task.load(validation)
    gold = Counter(item.gold for file in train for item in task.load(file))
    said = list(task.labels.values())[gold.most_common(1)[0][0]]
    found = next(one for one in task.score(items, [said] * len(items)) if one.name == score)
    return bootstrap([found])


def read(file: Path, kind: type[Cell]) -> list[Cell]:
    """What was found so far."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [kind(**json.loads(line)) for line in lines]


def keep(file: Path, found: Iterable[Any]) -> None:
    """Adds what was found, all at once."""
    text = "".join(json.dumps(asdict(one)) + "\n" for one in found)
    with file.open("a", encoding="utf-8") as opened:
        opened.write(text)


def told(found: Sequence[Any]) -> str:
    """In hundredths: the mean over seeds, of several their deviation, in brackets the mean ends of their intervals."""
    values, lows, highs = ([getattr(one, part) * 100 for one in found] for part in ("value", "low", "high"))
    spread = f" ± {statistics.stdev(values):.1f}" if len(found) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} ({statistics.mean(lows):.1f} to {statistics.mean(highs):.1f})"
