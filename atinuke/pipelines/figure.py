"""A run's own figure: what `evaluate` gives, of some of the validation rows, for any model that has its programs.

The rows lie evenly among those that fit the axes. A run on texts is measured in bits per token on windows of its
validation texts.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import AtinukeError, fail
from atinuke.pipelines import answers, given
from atinuke.pipelines.collate import collate
from atinuke.pipelines.corpus import is_held_out
from atinuke.pipelines.decode import Decoder
from atinuke.pipelines.deployed_model import DeployedModel
from atinuke.pipelines.examples import scan
from atinuke.pipelines.feed_rows import known, require_sizes
from atinuke.pipelines.fields import Text, mask_name
from atinuke.pipelines.objective import Making
from atinuke.pipelines.objective_labels import CTC, Classification, Contrastive, Regression
from atinuke.pipelines.objective_text import LABELS, TEXT, Causal, Masked, Seq2Seq
from atinuke.pipelines.recipe import Data
from atinuke.pipelines.rows import Listed, open_rows
from atinuke.pipelines.run import Trained, writer
from atinuke.pipelines.sampler import IGNORED, Batch, in_order
from atinuke.pipelines.scores.share import Share
from atinuke.pipelines.text import documents, find
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.pipelines.train import RECIPE, TOKENIZER
from atinuke.pipelines.validation import Validation
from atinuke.runtime.runner import Runner

MOST = 256
"""Rows, or windows of texts."""
WINDOW = 64  # tokens
GROUP = 8
"""Rows at once."""
QUIET = Console(quiet=True)

Figure = tuple[float | None, float | None, float | None]
"""A value and its 95 % interval, where it has one."""
NONE: Figure = (None, None, None)


@dataclass(frozen=True)
class Test:
    """The `metric` of a run and how a model is held against it: `measure(model, count)` over `count` of the rows, of
    which there are `rows`, called `of`."""

    metric: str
    rows: int
    of: str
    measure: Callable[[DeployedModel, int], Figure]


def find_test(run: tuple[Trained, Path, CheckedGraph], runner: Runner) -> tuple[Test | None, str]:
    """How the run is measured, or why it is not."""
    trained, folder, checked = run
    trained = replace(trained, checked=checked)
    recipe = trained.recipe
    if recipe.task:
        return None, "none: builds are not measured by a task"
    section, thing = ("rows", "rows") if recipe.rows else ("data", "texts")
    if not (recipe.rows.validation if recipe.rows else recipe.data and _held_out(recipe.data)):
        fix = f"to have it, name {thing} in `{section}.validation` of {folder / RECIPE} and compile again"
        return None, f"none: the run has no validation {thing}, so a quantised build comes without a figure; {fix}"
    try:
        return (_of_rows if recipe.rows else _of_texts)(trained, folder, runner), ""
    except (AtinukeError, OSError) as error:
        told = error.mistakes[0].what if isinstance(error, AtinukeError) else str(error)
        return None, f"none, because the run's validation {thing} cannot be used: {told}"


def _held_out(data: Data) -> bool:
    return bool(data.validation or data.validation_fraction)


def _of_rows(run: Trained, folder: Path, runner: Runner) -> Test:
    """The figure of `evaluate` on validation rows that fit the axes."""
    recipe, data = run.recipe, run.recipe.rows
    assert data
    assert data.validation
    rows = open_rows(data.validation)
    chosen = Listed([rows[int(number)] for number in _evenly(len(rows), MOST)], rows.fingerprint)
    tokenizer = Tokenizer.load(folder / TOKENIZER, recipe.tokenizer.end_of_text) if recipe.tokenizer else None
    examples = scan(chosen, known(data.fields, data), tokenizer, data.bad, QUIET)
    held = Validation(run, data, tokenizer, examples)
    batch = partial(_batch, held)
    if not isinstance(recipe.objective, Causal | Masked):
        inputs = run.checked.body.inputs
        batch = partial(_read, {n: f for n, f in examples.fields.items() if n in inputs and n != _written(run)}, run)
    fitting = [number for number in range(len(examples)) if _fits(run.checked, batch, examples[number])]
    if not fitting:
        raise fail("no row fits the axes that are compiled")

    def measure(model: DeployedModel, count: int) -> Figure:
        some = examples.some([fitting[int(at)] for at in _evenly(len(fitting), count)])
        return _figure(replace(held, run=replace(run, model=model), examples=some), folder, model)

    return Test(_metric(recipe.objective), len(fitting), f"{len(rows):,} validation rows", measure)


def _evenly(of: int, count: int) -> list[int]:
    """At most so many numbers that lie evenly from 0 on."""
    count = min(of, count)
    return [at * of // count for at in range(count)]


def _written(run: Trained) -> str | None:
    """The text that is to be written, and is not read."""
    return TEXT if isinstance(run.recipe.objective, Seq2Seq) else None


def _read(fields: dict[str, Any], run: Trained, examples: Sequence[Any]) -> Batch:
    inputs = run.checked.body.inputs
    return {name: tensor for name, tensor in collate(examples, fields).items() if name in inputs}


def _batch(held: Validation, examples: Sequence[Any]) -> Batch:
    """Inputs and labels of an objective whose labels are tokens of the text."""
    recipe, run = held.run.recipe, held.run
    masks = {name: mask_name(name, field) for name, field in held.examples.fields.items() if isinstance(field, Text)}
    inputs = frozenset(recipe.objective.trained(run.checked).graph.inputs)
    making = Making(inputs, masks, held.tokenizer, recipe.seed, training=False)
    return recipe.objective.batch(collate(examples, held.examples.fields), range(len(examples)), making)


def _fits(checked: CheckedGraph, batch: Callable[[Sequence[Any]], Batch], example: Any) -> bool:
    inputs = checked.body.inputs
    try:
        require_sizes(checked, {name: tensor for name, tensor in batch([example]).items() if name in inputs})
    except AtinukeError:
        return False
    return True


def _metric(objective: Any) -> str:
    match objective:
        case Classification():
            return "accuracy"
        case Regression():
            return "root mean squared error"
        case Contrastive():
            return "recall at 1"
        case CTC():
            return "error rate"
        case Seq2Seq():
            return "chrF"
        case Causal() | Masked():
            return "bits per token"
    raise fail(f"there is no figure for the objective {objective.name}")


def _figure(held: Validation, folder: Path, model: DeployedModel) -> Figure:
    objective = held.run.recipe.objective
    way = answers.Way(GROUP, QUIET)
    match objective:
        case Classification():
            return _share(answers.classification(held, objective, False, way)[0].figures.accuracy)
        case Regression():
            return answers.regression(held, objective, way).figures.rmse, None, None
        case Contrastive():
            return _share(answers.contrastive(held, objective, way).figures.there.recalls[0].found)
        case CTC():
            names = answers.classes_of(held, objective.scores, objective.labels)
            return answers.read(objective, names, 1, answers.answers(held, way)).figures[0].error_rate, None, None
        case Seq2Seq():
            run, field = writer(held.run, folder), held.examples.fields[answers.TARGET]
            most = min(getattr(field, "length", run.context), run.context - 1)
            written = answers.translate(held, lambda batch: given.answers(run, batch, most), way)
            return written.figures.model.chrf, None, None
    groups = (held.examples[at] for at in range(len(held.examples)))
    return _bits(model, (_batch(held, group) for group in _grouped(groups)))


def _grouped(items: Iterator[Any]) -> Iterator[list[Any]]:
    while group := list(islice(items, GROUP)):
        yield group


def _share(one: Share) -> Figure:
    return one.value, one.low, one.high


def _of_texts(run: Trained, folder: Path, runner: Runner) -> Test:
    """Bits per token on windows of the validation texts."""
    objective, data = run.recipe.objective, run.recipe.data
    assert data
    assert run.recipe.tokenizer
    metric = _metric(objective)
    tokenizer = Tokenizer.load(folder / TOKENIZER, run.recipe.tokenizer.end_of_text)
    length = run.checked.body.inputs[TEXT].shape[1]
    axis = run.checked.graph.axes.get(str(length))
    window = min(data.context, max(WINDOW, axis.low), axis.high) if axis else int(length)
    tokens = list(islice(_tokens(data, tokenizer), MOST * window))
    inputs = frozenset(objective.trained(run.checked).graph.inputs)
    making = Making(inputs, {TEXT: "attention_mask"}, tokenizer, run.recipe.seed, training=False)
    make = partial(objective.windows, making=making)
    windows = list(in_order(np.array(tokens), window, 1, make))

    def measure(model: DeployedModel, count: int) -> Figure:
        rows = [windows[at] for at in _evenly(len(windows), count)]
        return _bits(model, (_stack(group) for group in _grouped(iter(rows))))

    return Test(metric, len(windows), f"{len(windows):,} windows of {window} tokens of the validation texts", measure)


def _tokens(data: Data, tokenizer: Tokenizer) -> Iterator[int]:
    """The validation texts as one stream, an end of text behind each, as in training."""
    sources = data.validation or data.train
    for file in find(sources):
        for text in documents(file, data.field, data.split):
            if data.validation or is_held_out(text.encode(), data.validation_fraction):
                yield from tokenizer.encode(text)
                yield tokenizer.end_of_text


def _stack(batches: Sequence[Batch]) -> Batch:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@torch.inference_mode()
def _bits(model: DeployedModel, batches: Iterator[Batch]) -> Figure:
    """Minus the mean logarithm to base 2 of the probability of a label."""
    total, count = 0.0, 0
    for batch in batches:
        labels = batch[LABELS]
        scores = _stepped(model, batch) if "decode" in model.runner.programs else model(**batch).logits
        total += float(F.cross_entropy(scores.flatten(0, 1).double(), labels.flatten(), reduction="sum"))
        count += int((labels != IGNORED).sum())
    return (total / count / math.log(2) if count else math.nan), None, None


def _stepped(model: DeployedModel, batch: Batch) -> Tensor:
    """The logits of every place of a text, `[batch, sequence, vocab_size]`, token by token."""
    text = batch[TEXT]
    prepare = model.runner.programs.get("prepare")
    known = {port.name: batch[port.name] for port in prepare.inputs} if prepare else {}
    decoder = Decoder(model, text[:, :1].tolist(), given=known)
    return torch.stack([decoder.prefill(), *(decoder.next(text[:, at]) for at in range(1, text.shape[1]))], 1)
