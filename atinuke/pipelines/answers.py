"""From what a model answers to figures: a function for each objective."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from atinuke.core.errors import fail
from atinuke.pipelines import ctc
from atinuke.pipelines.examples import Example
from atinuke.pipelines.fields import Text
from atinuke.pipelines.objective_labels import CTC, Classification, Contrastive, Regression
from atinuke.pipelines.part import part
from atinuke.pipelines.sampler import IGNORED, Batch
from atinuke.pipelines.scores.classes import ClassFigures, class_figures
from atinuke.pipelines.scores.glue import correlation
from atinuke.pipelines.scores.numbers import NumberFigures, number_figures
from atinuke.pipelines.scores.reading import ReadingFigures, label_errors, reading
from atinuke.pipelines.scores.retrieval import RetrievalFigures, ranks, recalls, retrieval
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.scores.share import Share, share
from atinuke.pipelines.scores.translation import TranslationFigures, bleu, chrf, translation
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.pipelines.validation import Validation, answer, batch_of, groups

TARGET = "input_ids"

Pairs = Iterable[tuple[Sequence[Example], Any]]
Write = Callable[[Batch], Sequence[str]]
"""Writes a text for each row of a batch, in which the target is left out."""


@dataclass(frozen=True)
class Subset:
    """The accuracy where only these optional fields are shown; of the rows that have them all."""

    shown: tuple[str, ...]
    accuracy: Share


Found = TypeVar("Found")


@dataclass(frozen=True)
class Answered(Generic[Found]):
    """The figures of all rows; what was said for each row, as JSON can hold it, and what it brings to each score."""

    figures: Found
    said: Sequence[Any]
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class Way:
    """How rows go through the model: `size` at a time, with a progress bar on the console."""

    size: int
    console: Console


def classification(
    held: Validation, objective: Classification, subsets: bool, way: Way
) -> tuple[Answered[ClassFigures], tuple[Subset, ...]]:
    """The figures of all rows; with `subsets`, the accuracy for every set of optional fields that are shown too."""
    name, fields = objective.scores, held.examples.fields
    names = classes_of(held, name, objective.labels)
    if len(names) != (classes := _width(held, name)):
        what = f"the graph tells {classes} classes apart, but the rows have {len(names)}"
        raise fail(what, where=f"rows.fields.{objective.labels}")
    optional = _optional(held) if subsets else []
    chosen = [some for count in range(1, len(optional) + 1) for some in combinations(optional, count)]
    whole, *parts = counters = [Counter(objective.labels) for _ in range(1 + len(chosen))]
    for examples in groups(held.examples, way.size, way.console):
        views = [examples, *(show(examples, some, optional) for some in chosen)]
        for counter, view in zip(counters, views, strict=True):
            if view:
                output = answer(held.run, batch_of(held.run, view, fields))
                counter.add(view, numbers(getattr(output, name), name))
    found = tuple(Subset(some, part.accuracy()) for some, part in zip(chosen, parts, strict=True))
    said = [[names[one] for one in row] for row in whole.said]
    scores = (Score("accuracy", "mean", whole.rows()),)
    return Answered(class_figures(*whole.found(), names), said, scores), found


def regression(held: Validation, objective: Regression, way: Way) -> Answered[NumberFigures]:
    """The figures of all rows."""
    name = objective.values
    right: list[Any] = []
    said: list[NDArray[np.float64]] = []
    for examples, output in answers(held, way):
        right += [example[objective.labels] for example in examples]
        said.append(numbers(getattr(output, name), name))
    a, b = np.array(right, np.float64).reshape(-1), np.concatenate(said).reshape(-1)
    off = Score("absolute error", "rate", np.stack([np.abs(a - b), np.ones_like(a)], 1))
    return Answered(
        number_figures(a, b), b.tolist(), (correlation("pearson", a, b), correlation("spearman", a, b), off)
    )


def contrastive(held: Validation, objective: Contrastive, way: Way) -> Answered[RetrievalFigures]:
    """The figures over all rows at once; what is said is the rank of the best right one, on both sides.

    Two rows have the same thing on a side where all values of the fields that it is made from are identical, such as
    one text of several pictures: these count as right for each other. Rows that lack a side are left out.
    """
    graph = held.run.checked.graph
    reads = [part(graph, {name: graph.outputs[name]}).inputs for name in objective.pair]
    sides = [[name for name in held.examples.fields if name in read] for read in reads]
    vectors: tuple[list[NDArray[np.float64]], ...] = ([], [])
    things: tuple[list[bytes], ...] = ([], [])
    for examples, output in answers(held, way):
        found = [[_thing(example, side) for side in sides] for example in examples]
        whole = [row for row, both in enumerate(found) if None not in both]
        for i, name in enumerate(objective.pair):
            vectors[i].append(numbers(getattr(output, name)[whole], name))
            things[i].extend(thing for row in whole if (thing := found[row][i]) is not None)
    if not things[0]:
        raise fail("no row has both sides", where="rows.validation")
    first, second = map(np.concatenate, vectors)
    there, back = ranks(first, second, *things)
    scores = (*recalls("", there), *recalls(" back", back))
    return Answered(retrieval(first, second, *things), list(zip(there, back, strict=True)), scores)


def read(
    objective: CTC, names: Sequence[str], beams: int, pairs: Pairs
) -> Answered[tuple[ReadingFigures, ReadingFigures]]:
    """Both ways of reading: the likeliest alignment, and the likeliest labels. The blank is the last class unless the
    objective says otherwise."""
    right: list[tuple[int, ...]] = []
    greedy: list[tuple[int, ...]] = []
    searched: list[tuple[int, ...]] = []
    for examples, output in pairs:
        scores = torch.from_numpy(numbers(getattr(output, objective.scores), objective.scores))
        blank = scores.shape[-1] - 1 if objective.blank is None else objective.blank
        mask = getattr(output, objective.mask) if objective.mask else None
        labels = (example[objective.labels] for example in examples)
        right += [() if row is None else tuple(int(label) for label in row if label != IGNORED) for row in labels]
        greedy += ctc.greedy(scores, mask, blank)
        searched += [found[0].labels for found in ctc.beam_search(scores, mask, blank, beams)]
    figures = reading("greedy", right, greedy, names), reading(f"{beams} beams", right, searched, names)
    said = [[names[label] if label < len(names) else str(label) for label in row] for row in searched]
    return Answered(figures, said, (label_errors("token error rate", right, searched),))


def translate(held: Validation, write: Write, way: Way) -> Answered[TranslationFigures]:
    """The figures of what is written. The target is the text `input_ids`; the source is the one other text that the
    model reads, if there is one."""
    fields = held.examples.fields
    others = {name: field for name, field in fields.items() if name != TARGET}
    texts = [n for n, field in others.items() if isinstance(field, Text) and n in held.run.checked.body.inputs]
    right: list[str] = []
    written: list[str] = []
    sources: list[str] = []
    for examples in groups(held.examples, way.size, way.console):
        written += write(batch_of(held.run, examples, others))
        right += [text_of(example[TARGET], held.tokenizer) for example in examples]
        sources += [text_of(example[texts[0]], held.tokenizer) for example in examples] if len(texts) == 1 else []
    return Answered(translation(written, right, sources or None), written, (chrf(written, right), bleu(written, right)))


def answers(held: Validation, way: Way) -> Iterator[tuple[list[Example], Any]]:
    """The rows and what the model gives for them, group by group."""
    for examples in groups(held.examples, way.size, way.console):
        yield examples, answer(held.run, batch_of(held.run, examples, held.examples.fields))


def classes_of(held: Validation, scores: str, labels: str) -> tuple[str, ...]:
    """The names of the classes of the field `labels`; numbers where it has none."""
    named: tuple[str, ...] | None = getattr(held.examples.fields.get(labels), "classes", None)
    return named or tuple(map(str, range(_width(held, scores))))


def _width(held: Validation, output: str) -> int:
    return int(held.run.checked.body.outputs[output].shape[-1])


def _optional(held: Validation) -> list[str]:
    """The optional fields that the model reads."""
    inputs = held.run.checked.body.inputs
    found = [name for name, f in held.examples.fields.items() if getattr(f, "optional", False) and name in inputs]
    if not found:
        raise fail("the model reads no optional field, so there are no subsets", where="rows.fields")
    return found


def show(examples: Sequence[Example], shown: Sequence[str], optional: Iterable[str]) -> list[Example]:
    """The examples that have all fields `shown`, without the other optional ones."""
    hidden = dict.fromkeys(set(optional) - set(shown))
    return [{**one, **hidden} for one in examples if all(one[name] is not None for name in shown)]


class Counter:
    """The labels of a field and the best classes of scores, over batches; rows without a label do not count. `said` are
    those of each row."""

    def __init__(self, labels: str) -> None:
        self._labels = labels
        self._right: list[NDArray[np.int64]] = []
        self.said: list[NDArray[np.int64]] = []

    def add(self, examples: Sequence[Example], scores: NDArray[np.float64]) -> None:
        """Scores `[batch, ..., classes]`, where the labels of a row fill the axes between from the beginning."""
        for example, best in zip(examples, scores.argmax(-1), strict=True):
            label = example[self._labels]
            right = np.empty(0, np.int64) if label is None else label.reshape(-1)
            counts = right != IGNORED
            self._right.append(right[counts])
            self.said.append(np.reshape(best, -1)[: len(right)][counts])

    def found(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What is right and what was said."""
        nothing = [np.empty(0, np.int64)]
        return np.concatenate(nothing + self._right), np.concatenate(nothing + self.said)

    def rows(self) -> NDArray[np.float64]:
        """How many labels of each row are right, and how many it has, `[rows, 2]`."""
        both = [((right == said).sum(), len(right)) for right, said in zip(self._right, self.said, strict=True)]
        return np.array(both, np.float64).reshape(-1, 2)

    def accuracy(self) -> Share:
        right, said = self.found()
        return share(int((right == said).sum()), len(right))


def numbers(tensor: Tensor, name: str) -> NDArray[np.float64]:
    """The output `name` in float64.

    Raises:
        AtinukeError: it holds what is no number.
    """
    if not tensor.isfinite().all():
        fix = "look for the first node that gives NaN, or train with a lower `optimiser.lr`"
        raise fail(f"the output `{name}` holds what is no number", fix=fix)
    array: NDArray[np.float64] = tensor.double().cpu().numpy()
    return array


def _thing(example: Example, side: Sequence[str]) -> bytes | None:
    """What stands on one side of a row, as a digest of its values; None where nothing does."""
    values = [example[name] for name in side]
    if all(value is None for value in values):
        return None
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(None if value is None else value.shape).encode())
        digest.update(b"" if value is None else value.tobytes())
    return digest.digest()


def text_of(tokens: NDArray[Any] | None, tokenizer: Tokenizer | None) -> str:
    """The text of the tokens of a field; nothing where it is missing."""
    if tokens is None:
        return ""
    if tokenizer is None:
        return tokens.astype(np.uint8).tobytes().decode(errors="replace")
    return tokenizer.decode(tokens.tolist())
