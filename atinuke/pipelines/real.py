"""Real inputs of a run: its first validation rows or texts, as the model reads them."""

from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from atinuke.compile.certificate import PROMPT, ROWS
from atinuke.compile.programs import Program
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import AtinukeError, fail
from atinuke.pipelines.collate import collate
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.examples import Example
from atinuke.pipelines.feed_rows import require_sizes
from atinuke.pipelines.fields import decode
from atinuke.pipelines.rows import open_rows
from atinuke.pipelines.run import Trained, writer
from atinuke.pipelines.task import Task
from atinuke.pipelines.text import documents, find
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.pipelines.train import TOKENIZER
from atinuke.runtime.interface import BATCH

Given = Mapping[str, Tensor]
MOST = 1000  # rows that are tried


def real_inputs(
    run: Trained, folder: Path, checked: CheckedGraph, programs: Mapping[str, Program]
) -> tuple[Given | None, str]:
    """A batch of the run's validation rows or texts as inputs of the graph `checked`, and which they are; or none, and
    why."""
    axis = checked.graph.axes.get(BATCH)
    if axis is None:
        return None, f"drawn at random: the graph has no axis `{BATCH}`"
    wanted = {
        port.name for name in ("forward", "prepare") if name in programs for port in programs[name].interface.inputs
    }
    wanted |= {programs["decode"].interface.inputs[0].name} if "decode" in programs else set()
    try:
        rows = min(max(ROWS, axis.low), axis.high)
        if run.recipe.task:
            given, what = _items(run.recipe.task, run, folder, rows)
        else:
            given, what = _rows(run, folder, checked, rows) if run.recipe.rows else _texts(run, folder, rows)
        require_sizes(checked, given)
        lacking = sorted(wanted - given.keys())
        if lacking:
            raise fail(f"it has no `{lacking[0]}`")
        count = len(next(iter(given.values())))
        if count < rows:
            raise fail(f"it has {count} rows, and {rows} are needed")
    except (AtinukeError, OSError) as error:
        told = error.mistakes[0].what if isinstance(error, AtinukeError) else str(error)
        return None, f"drawn at random, because the run's own data cannot be used: {told}"
    return given, what


def _rows(run: Trained, folder: Path, checked: CheckedGraph, count: int) -> tuple[dict[str, Tensor], str]:
    """The first rows that fit the axes of `checked`, which may be narrower than the run's."""
    data = run.recipe.rows
    assert data
    source, name = (data.validation, "validation") if data.validation else (data.train, "training")
    inputs = run.checked.graph.inputs
    tokenizer = Tokenizer.load(folder / TOKENIZER, run.recipe.tokenizer.end_of_text) if run.recipe.tokenizer else None
    fields = {field: how for field, how in data.fields.items() if field in inputs}
    rows = open_rows(source)

    def batch(examples: list[Example]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in collate(examples, fields).items() if name in inputs}

    found: list[Example] = []
    for number in range(min(len(rows), MOST)):
        example = {field: decode(how, rows[number], tokenizer) for field, how in fields.items()}
        with suppress(AtinukeError):
            require_sizes(checked, batch([example] * count))
            found.append(example)
        if len(found) == count:
            break
    if not found:
        raise fail("no row fits the axes")
    return batch(found), f"{len(found)} {name} rows"


def _items(task: Task, run: Trained, folder: Path, count: int) -> tuple[dict[str, Tensor], str]:
    """The first windows of a task's files."""
    files, name = (task.validation, "validation") if task.validation else (task.train, "training")
    texts = Texts.load(folder / TOKENIZER)
    windows = [window for item in task.load(find(files)[0])[:count] for window in task.encode(item, texts)][:count]
    batch = task.collate(windows)
    given = {name: tensor for name, tensor in batch.items() if name in run.checked.graph.inputs}
    return given, f"the first {len(windows)} windows of the {name} files"


def _texts(run: Trained, folder: Path, count: int) -> tuple[dict[str, Tensor], str]:
    found, data = writer(run, folder), run.recipe.data
    assert data
    sources, name = (data.validation, "validation") if data.validation else (data.train, "training")
    texts = (text for file in find(sources) for text in documents(file, data.field, data.split))
    encoded = filter(lambda tokens: len(tokens) >= PROMPT, map(found.tokenizer.encode, texts))
    prompts = [tokens[:PROMPT] for tokens in islice(encoded, count)]
    if not prompts:
        raise fail(f"no text has {PROMPT} tokens")
    return {"input_ids": torch.tensor(prompts)}, f"the beginnings of {len(prompts)} {name} texts"
