"""How near numbers come: errors, and correlations."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class NumberFigures:
    """Root mean square and mean absolute error, in the unit of the labels; Pearson's and Spearman's correlation, NaN
    where one side never changes; `spread` is the error of always saying the labels' mean."""

    rmse: float
    mae: float
    pearson: float
    spearman: float
    spread: float
    n: int


def number_figures(right: Values, said: Values) -> NumberFigures:
    """The figures of labels and answers, `[n]` each."""
    errors = said - right
    return NumberFigures(
        math.sqrt(float(np.mean(errors**2))),
        float(np.mean(np.abs(errors))),
        _correlation(right, said),
        _correlation(_ranks(right), _ranks(said)),
        float(np.std(right)),
        len(right),
    )


def _correlation(a: Values, b: Values) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))


def _ranks(values: Values) -> Values:
    """The place of each value in the order of all; equal ones share the mean of their places."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    places: Values = (last - (counts - 1) / 2)[which]
    return places
