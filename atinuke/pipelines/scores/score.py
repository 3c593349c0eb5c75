"""A score: what each row adds to a figure, and the figure that weighted rows make.

The figure is a function of how often each row counts, so that intervals, tests and slices need nothing but this record
(see `atinuke.pipelines.significance`), and a file of predictions can be compared without the task that wrote it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from atinuke.core.errors import fail

Values = NDArray[np.float64]
Figure = Callable[[Values, Values], Values]
"""Rows `[n, columns]` and weights `[r, n]` to r figures."""


def over(part: Values, whole: Values) -> Values:
    """Part by whole, elementwise; nothing of nothing is 0, as the official scorers have it."""
    return np.divide(part, whole, out=np.zeros(np.broadcast_shapes(part.shape, whole.shape)), where=whole != 0)


def f1_of(counts: Values) -> Values:
    """F1 of `[..., 4]`: the numerator and denominator of recall, then those of precision."""
    recall, precision = over(counts[..., 0], counts[..., 1]), over(counts[..., 2], counts[..., 3])
    return over(2 * precision * recall, precision + recall)


@dataclass(frozen=True)
class Kind:
    """How rows become a figure; `lower` where less is better, `share` where it lies between 0 and 1."""

    name: str
    columns: int | None
    figure: Figure
    lower: bool = False
    share: bool = True


def _of_sums(figure: Callable[[Values], Values]) -> Figure:
    return lambda rows, weights: figure(weights @ rows)


def _mean(sums: Values) -> Values:
    return over(sums[..., 0], sums[..., 1])


def _conll(sums: Values) -> Values:
    found: Values = f1_of(sums.reshape(*sums.shape[:-1], 3, 4)).mean(-1)
    return found


def _blanc(sums: Values) -> Values:
    """The mean F1 of links and of non-links; of one alone where the key has no other (Luo et al., 2014)."""
    links, others = f1_of(sums[..., :4]), f1_of(sums[..., 4:])
    found: Values = np.where(sums[..., 1] == 0, others, np.where(sums[..., 5] == 0, links, (links + others) / 2))
    return found


def _matthews(sums: Values) -> Values:
    """Matthews' correlation of a confusion `[..., classes * classes]` (R_K of Gorodkin, 2004); 0 where the labels or
    the answers are all of one class."""
    classes = round(sums.shape[-1] ** 0.5)
    table = sums.reshape(*sums.shape[:-1], classes, classes)
    right, said, n = table.sum(-1), table.sum(-2), sums.sum(-1)
    hits = np.trace(table, axis1=-2, axis2=-1)
    cov = hits * n - (right * said).sum(-1)
    spread = (n**2 - (right**2).sum(-1)) * (n**2 - (said**2).sum(-1))
    return over(cov, np.sqrt(spread))


def _macro_f1(sums: Values) -> Values:
    """The mean F1 of the classes of a confusion `[..., classes * classes]`; one that is neither right nor said does not
    count."""
    classes = round(sums.shape[-1] ** 0.5)
    table = sums.reshape(*sums.shape[:-1], classes, classes)
    both = table.sum(-1) + table.sum(-2)
    return over(over(2 * np.diagonal(table, axis1=-2, axis2=-1), both).sum(-1), (both > 0).sum(-1).astype(np.float64))


def pearson(rows: Values, weights: Values) -> Values:
    """Pearson's correlation of two columns; 0, where SciPy has no number, if one of them never changes."""
    n = weights.sum(-1)
    x, y = (rows - rows.mean(0)).T  # the variance of large numbers that differ little keeps its digits
    mean_x, mean_y = over(weights @ x, n), over(weights @ y, n)
    spread_x, spread_y = over(weights @ x**2, n) - mean_x**2, over(weights @ y**2, n) - mean_y**2
    changes = (spread_x > 1e-12 * (x**2).max(initial=0)) & (spread_y > 1e-12 * (y**2).max(initial=0))
    cov = over(weights @ (x * y), n) - mean_x * mean_y
    return np.where(changes, over(cov, np.sqrt(np.maximum(spread_x * spread_y, 0))), 0.0)


def spearman(rows: Values, weights: Values) -> Values:
    """Spearman's correlation: Pearson's of ranks, equal values sharing the mean of their ranks."""
    x, y = (_centred_ranks(column, weights) for column in rows.T)
    cov, spread_x, spread_y = ((weights * a * b).sum(-1) for a, b in ((x, y), (x, x), (y, y)))
    return over(cov, np.sqrt(spread_x * spread_y))


def _centred_ranks(column: Values, weights: Values) -> Values:
    _, which = np.unique(column, return_inverse=True)
    order = np.argsort(which, kind="stable")
    starts = np.flatnonzero(np.diff(which[order], prepend=-1))
    tied = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(tied, axis=1) - tied / 2
    centred: Values = (ranks - tied.sum(1, keepdims=True) / 2)[:, which]
    return centred


def _chrf(sums: Values) -> Values:
    """chrF2, 0 to 100 (Popović, 2015; Post, 2018), of each order's n-grams said, right and common. Orders that one side
    is too short for do not count."""
    said, right, common = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)
    there = (said > 0) & (right > 0)
    orders = there.sum(-1).astype(np.float64)
    precision, recall = (over((over(common, whole) * there).sum(-1), orders) for whole in (said, right))
    return 100 * over(5 * precision * recall, 4 * precision + recall)


def _bleu(sums: Values) -> Values:
    """BLEU, 0 to 100 (Papineni et al., 2002), of lengths said and right, then each order's n-grams common and said;
    an order without any in common counts as half of one, then a quarter, as sacrebleu smooths (`exp`)."""
    said, right = sums[..., 0], sums[..., 1]
    common, whole = np.moveaxis(sums[..., 2:].reshape(*sums.shape[:-1], -1, 2), -1, 0)
    none = (common == 0) & (whole > 0)
    smooth = np.where(none, 0.5 ** np.cumsum(none, -1), common)
    possible = (whole > 0).all(-1) & (common > 0).any(-1)
    logs = np.log(np.where(possible[..., None], over(smooth, whole), 1.0)).mean(-1)
    brief = np.where(said < right, np.exp(np.minimum(0.0, 1 - over(right, said))), 1.0)
    return np.where(possible, 100 * brief * np.exp(logs), 0.0)


def _perplexity(sums: Values) -> Values:
    return np.exp(over(sums[..., 0], sums[..., 1]))


KINDS = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Kind("mean", 2, _of_sums(_mean)),
            Kind("f1", 4, _of_sums(f1_of)),
            Kind("conll", 12, _of_sums(_conll)),
            Kind("blanc", 8, _of_sums(_blanc)),
            Kind("matthews", None, _of_sums(_matthews)),
            Kind("macro f1", None, _of_sums(_macro_f1)),
            Kind("pearson", 2, pearson),
            Kind("spearman", 2, spearman),
            Kind("chrf", 18, _of_sums(_chrf), share=False),
            Kind("bleu", 10, _of_sums(_bleu), share=False),
            Kind("error rate", 2, _of_sums(_mean), lower=True),
            Kind("rate", 2, _of_sums(_mean), lower=True, share=False),
            Kind("perplexity", 2, _of_sums(_perplexity), lower=True, share=False),
        )
    }
)
"""What a score may be. `mean`: a sum and its count. `f1`: numerator and denominator of recall, then of precision.
`conll`: three times that. `blanc`: that of links, then of non-links. `matthews`, `macro f1`: a confusion, row by row.
`pearson`, `spearman`: what is right and what was said. `chrf`, `bleu`: see there. `error rate`: errors and what there
was to get right. `rate`: an amount and its unit. `perplexity`: nats and how many they are spread over."""


@dataclass(frozen=True)
class Score:
    """A figure by name; `rows` `[n, columns]` are what each row adds to it, as its kind in `KINDS` wants it."""

    name: str
    kind: str
    rows: Values

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise fail(f"{self.name}: there is no kind of score called {self.kind!r}", f"there are {', '.join(KINDS)}")
        columns = KINDS[self.kind].columns
        if self.rows.ndim != 2 or columns not in (None, self.rows.shape[1]):
            raise fail(
                f"{self.name}: the rows of a score of kind {self.kind} are a table",
                f"expected {columns or 'any number of'} columns, got the shape {list(self.rows.shape)}",
            )
        if not np.isfinite(self.rows).all():
            row = int(np.flatnonzero(~np.isfinite(self.rows).all(1))[0])
            raise fail(f"{self.name}: row {row + 1} is no number", f"got {self.rows[row].tolist()}")

    def figure(self, weights: Values) -> Values:
        """The figure for each of r ways to weigh the rows, `[r, n]`."""
        return KINDS[self.kind].figure(self.rows, weights)

    @property
    def value(self) -> float:
        """The figure of all rows; of none it is 0, or 1 for a perplexity."""
        return float(self.figure(np.ones((1, len(self.rows))))[0])


def mean_score(name: str, values: Values) -> Score:
    """The mean of a figure `[n]` that each row has by itself."""
    return Score(name, "mean", np.stack([values, np.ones_like(values)], 1).astype(np.float64))
