"""How well classes are told apart: accuracy, precision, recall, F1 and who is taken for whom."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atinuke.pipelines.scores.share import Share, share

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class OneClass:
    """`n` is how often the class is right, `predicted` how often it was said; a figure of 0 by 0 is NaN."""

    name: str
    precision: float
    recall: float
    f1: float
    n: int
    predicted: int


@dataclass(frozen=True)
class ClassFigures:
    """`confusion[i][j]` is how often class i was taken for class j. `macro_f1` is the plain mean of the F1 of all
    classes that were right or said at least once."""

    accuracy: Share
    macro_f1: float
    classes: tuple[OneClass, ...]
    confusion: tuple[tuple[int, ...], ...]


def class_figures(right: Numbers, said: Numbers, names: Sequence[str]) -> ClassFigures:
    """The figures of the numbers of classes that are right and that were said, int64 `[n]` each."""
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (right, said), 1)
    hits, rows, columns = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    classes = tuple(
        OneClass(name, _of(hit, column), _of(hit, row), _of(2 * hit, row + column), int(row), int(column))
        for name, hit, row, column in zip(names, hits, rows, columns, strict=True)
    )
    known = [one.f1 for one in classes if one.n or one.predicted]
    macro = sum(known) / len(known) if known else math.nan
    told = tuple(tuple(int(count) for count in row) for row in confusion)
    return ClassFigures(share(int(hits.sum()), len(right)), macro, classes, told)


def _of(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else math.nan
