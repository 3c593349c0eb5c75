"""A trained run and the rows that it is measured on, one group of rows after another through the model."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from atinuke.core.errors import fail
from atinuke.pipelines.collate import collate
from atinuke.pipelines.examples import Example, Examples, scan
from atinuke.pipelines.feed_rows import known, require, require_sizes
from atinuke.pipelines.fields import Field
from atinuke.pipelines.recipe import Recipe, RowsData, load_recipe
from atinuke.pipelines.rows import open_rows
from atinuke.pipelines.run import Trained, open_model
from atinuke.pipelines.sampler import Batch
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.pipelines.train import RECIPE, TOKENIZER

WORKERS = 2


@dataclass(frozen=True)
class Validation:
    """A run, `data` that says where its rows come from, its `tokenizer` if it has one, and the rows."""

    run: Trained
    data: RowsData
    tokenizer: Tokenizer | None
    examples: Examples


def open_validation(folder: Path, overrides: Sequence[str], console: Console) -> Validation:
    """The run in a folder with its validation rows, or others: `overrides` may change `rows`, and nothing else.

    Classes are those of the rows that the run was trained on. Every row is looked at once.

    Raises:
        AtinukeError: there is no trained run of rows, it has no validation rows, an override changes something else; or
            a row is bad.
    """
    run = open_model(folder)
    recipe = load_recipe(folder / RECIPE, overrides)
    data, trained = rows_of(recipe, folder), rows_of(run.recipe, folder)
    for name in Recipe.model_fields:
        if name != "rows" and getattr(recipe, name) != getattr(run.recipe, name):
            raise fail(f"`{name}` of a run cannot be changed", where=str(folder), fix="change only `rows`")
    if data.fields != trained.fields:
        require(recipe.objective.trained(run.checked), recipe)
    if data.validation is None:
        fix = "add --set 'rows.validation={name: manifest, files: [/path/of/rows.jsonl]}'"
        raise fail("has no validation rows", where=str(folder), fix=fix)
    rows = open_rows(data.validation)
    fields = known(data.fields, trained)
    tokenizer = Tokenizer.load(folder / TOKENIZER, recipe.tokenizer.end_of_text) if recipe.tokenizer else None
    return Validation(run, data, tokenizer, scan(rows, fields, tokenizer, data.bad, console))


def rows_of(recipe: Recipe, where: Path) -> RowsData:
    """The recipe's rows.

    Raises:
        AtinukeError: it reads texts instead.
    """
    if recipe.rows is None:
        raise fail("reads texts, not rows", where=str(where), fix="use a recipe that has `rows`")
    return recipe.rows


def groups(examples: Examples, size: int, console: Console) -> Iterator[list[Example]]:
    """All examples in order, `size` at a time, with a progress bar."""
    starts = range(0, len(examples), size)
    with ThreadPoolExecutor(WORKERS) as pool:
        for start in track(starts, "measuring", console=console, transient=True):
            yield list(pool.map(examples.__getitem__, range(start, min(start + size, len(examples)))))


def batch_of(run: Trained, examples: Sequence[Example], fields: dict[str, Field]) -> Batch:
    """The tensors that the model reads.

    Raises:
        AtinukeError: they are of sizes for which the graph was not proved.
    """
    inputs = run.checked.body.inputs
    read = {name: field for name, field in fields.items() if name in inputs}
    batch = {name: tensor for name, tensor in collate(examples, read).items() if name in inputs}
    require_sizes(run.checked, batch)
    return batch


@torch.inference_mode()
def answer(run: Trained, batch: Batch) -> Any:
    """The outputs of the model, in evaluation and in full precision."""
    run.model.eval()
    return run.model(**batch)
