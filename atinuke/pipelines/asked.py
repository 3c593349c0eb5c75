"""Which task a run, or a pretrained model as it is, is asked to be measured by."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from atinuke.compile.front import check_graph
from atinuke.compile.module import build
from atinuke.core.document import parse
from atinuke.core.errors import fail
from atinuke.core.registry import Registry
from atinuke.pipelines.base import newest_weights
from atinuke.pipelines.init import adopt
from atinuke.pipelines.run import Trained
from atinuke.pipelines.section import Section, read
from atinuke.pipelines.task import Task, Untrained


class _Settings(Section):
    """What `--task` and `--set` say of a task."""

    task: Task


def find_asked(
    run: Trained, folder: Path, task: str | None, data: Sequence[Path], overrides: Sequence[str]
) -> tuple[Task, Trained]:
    """The task with its files, and the model that answers it: the task of the run, or another with the settings that
    both have; of a model folder, with the head of the task.

    Raises:
        AtinukeError: a run was trained on no task, or on one with other answers; a head would have weights that nobody
            has trained; or what is asked is wrong.
    """
    kind = None if task is None else Task.named(task)
    trained = run.made.task if run.made else None
    given: dict[str, Any] = {}
    if run.made is None and kind is None:
        fix = "name one with --task, or train a recipe that has `task` and this as `pretrained`"
        raise fail("was not trained on a task", where=str(folder), fix=fix)
    if run.made and not (kind and issubclass(kind, Untrained)):
        if trained is None:
            fix = "train a recipe that has `task`, or evaluate without --task"
            raise fail("was not trained on a task", where=str(folder), fix=fix)
        known = (kind or type(trained)).model_fields
        given = {key: value for key, value in trained.model_dump(mode="json").items() if key in known}
    changes = [*overrides, *([f"task.name={task}"] if task else [])]
    if data:
        changes.append(f"task.validation={json.dumps([str(file.resolve()) for file in data])}")
    for name in sorted({change.partition("=")[0].partition(".")[0] for change in changes} - {"task"}):
        raise fail(f"`{name}` of a run cannot be changed", where=str(folder), fix="change only `task`")
    asked: Task = read(_Settings, parse(json.dumps({"task": given})), changes).task
    if given and trained and asked.answers != trained.answers:
        fix = f"evaluate it on {', '.join(_alike(trained))}"
        raise fail(f"was trained for {trained.name}, and cannot answer {asked.name}", where=str(folder), fix=fix)
    if not given and asked.train:
        raise fail(f"nothing is trained to answer {asked.name}", where="task.train", fix="leave it out")
    if not asked.validation:
        raise fail("there is nothing to measure it on", where=str(folder), fix="name a file: --data FILE")
    return asked, run if given or isinstance(asked, Untrained) else _headed(run, asked, folder)


def _headed(run: Trained, task: Task, folder: Path) -> Trained:
    """A pretrained model with the head of a task, where that has no weights."""
    checked = check_graph(task.head(run.checked))
    model = build(checked).eval()
    if new := adopt(model, newest_weights(folder)).new:
        what = f"a pretrained model cannot answer {task.name} before it is trained"
        fix = "train it: name it as `pretrained` in a recipe with this task"
        raise fail(what, f"it has no `{new[0]}`", where=str(folder), fix=fix)
    return replace(run, checked=checked, model=model)


def _alike(trained: Task) -> list[str]:
    """The tasks that a run can be measured by, its own first."""
    found = [trained.name]
    for name in Registry().tasks():
        try:
            other = Task.named(name).model_validate({"name": name})
        except ValidationError:  # one that needs settings
            continue
        if other.answers == trained.answers and name != trained.name:
            found.append(name)
    return found
