"""How far chance may have moved a score, and whether one system is better than another.

The unit of chance is a row, or a group of rows that belong together (a document, an article). Seeds of training are a
second source of chance, drawn along with the rows. Everything follows from the seed.

Sources: Efron (1979) for the bootstrap; Noreen (1989) and Yeh (2000) for approximate randomisation; Berg-Kirkpatrick et
al. (2012) for both in our field; Rao and Wu (1988) for drawing one seed less than there are; Holm (1979).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atinuke.core.errors import fail
from atinuke.pipelines.scores.score import KINDS, Score, Values

LEVEL = 0.95
HELD = 1 << 20  # weights that are held at once: 8 MiB

Groups = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A figure, the interval from `low` to `high` of a level of 95 %, the number of `units` that chance was taken over
    (rows or groups) and of `runs` (seeds). With fewer than two units and runs the ends are NaN."""

    value: float
    low: float
    high: float
    units: int
    runs: int = 1


@dataclass(frozen=True)
class Comparison:
    """A against B by one score. `difference` is A's less B's, over the same rows; `p` the two-sided probability of so
    large a difference if the two are exchanged at random in every unit. `better` is "A" or "B" where both say so: p,
    after Holm's correction for the number of scores, is below 5 % and the interval is on one side of 0; else None."""

    score: str
    a: float
    b: float
    difference: Interval
    p: float
    better: str | None


def bootstrap(
    scores: Sequence[Score], groups: Groups | None = None, *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """The interval of the mean of a score over the runs of several seeds, one `Score` each, over the same rows.

    `groups` `[n]` numbers what a row belongs to, and is drawn whole. The interval is that of percentiles.

    Raises:
        AtinukeError: the scores are not of the same rows and kind.
    """
    _same(scores, groups)
    (drawn,) = _resampled([scores], groups, resamples, np.random.default_rng(seed))
    return _interval(float(np.mean([score.value for score in scores])), drawn, scores, groups)


def compare(
    a: Sequence[Score],
    b: Sequence[Score],
    groups: Groups | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """A against B by one score, each with one `Score` a seed, as many on both sides; see `verdicts` for several.

    Raises:
        AtinukeError: the scores are not of the same rows and kind, or there are more seeds on one side.
    """
    if len(a) != len(b):
        raise fail("both sides need as many runs", f"got {len(a)} and {len(b)}", fix="leave some out")
    _same([*a, *b], groups)
    value_a, value_b = (float(np.mean([score.value for score in side])) for side in (a, b))
    drawn_a, drawn_b = _resampled([a, b], groups, resamples, np.random.default_rng(seed))
    difference = _interval(value_a - value_b, drawn_a - drawn_b, a, groups)
    p = _exchanged(a, b, groups, resamples, np.random.default_rng(seed + 1))
    better = _better(a[0].kind, difference, p)
    return Comparison(a[0].name, value_a, value_b, difference, p, better)


def verdicts(found: Sequence[Comparison], kinds: Sequence[str]) -> tuple[Comparison, ...]:
    """The comparisons of several scores of the same systems: each p grows by Holm's correction, and with it what may be
    said."""
    order = np.argsort([one.p for one in found], kind="stable")
    adjusted, least = np.ones(len(found)), 0.0
    for place, i in enumerate(order):
        least = max(least, min(1.0, found[i].p * (len(found) - place)))
        adjusted[i] = least
    return tuple(
        Comparison(one.score, one.a, one.b, one.difference, float(p), _better(kind, one.difference, float(p)))
        for one, p, kind in zip(found, adjusted, kinds, strict=True)
    )


def _better(kind: str, difference: Interval, p: float) -> str | None:
    if not p < 1 - LEVEL or not (difference.low > 0 or difference.high < 0):
        return None
    return "A" if (difference.low > 0) != KINDS[kind].lower else "B"


def _same(scores: Sequence[Score], groups: Groups | None) -> None:
    if not scores:
        raise fail("there is no score to compare")
    first = scores[0]
    for score in scores[1:]:
        if (score.name, score.kind, score.rows.shape) != (first.name, first.kind, first.rows.shape):
            raise fail(
                "the scores are not of the same rows and kind",
                *(f"{one.name}: kind {one.kind}, {len(one.rows):,} rows" for one in (first, score)),
            )
    if groups is not None and len(groups) != len(first.rows):
        raise fail("every row belongs to one group", f"{len(first.rows):,} rows, {len(groups):,} numbers of groups")


def _units(rows: int, groups: Groups | None) -> int:
    return rows if groups is None else len(np.unique(groups))


def _spread(weights: Values, groups: Groups | None) -> Values:
    """The weights of units, `[r, units]`, as those of rows."""
    return weights if groups is None else weights[:, np.unique(groups, return_inverse=True)[1]]


def _chunks(total: int, units: int) -> Iterator[int]:
    at_once = max(1, HELD // max(1, units))
    for start in range(0, total, at_once):
        yield min(at_once, total - start)


def _resampled(
    sides: Sequence[Sequence[Score]], groups: Groups | None, resamples: int, random: np.random.Generator
) -> list[Values]:
    """The figure of each side in each resample: the same units of both, drawn with replacement; and of several runs one
    less than there are, with replacement too, which gives their mean the variance that it has."""
    rows = len(sides[0][0].rows)
    units = _units(rows, groups)
    choosing = random.spawn(len(sides))
    found: list[list[Values]] = [[] for _ in sides]
    for count in _chunks(resamples, rows):
        places = random.integers(0, units, (count, units), np.int32) + np.arange(0, count * units, units)[:, None]
        weights = np.bincount(places.ravel(), minlength=count * units).reshape(count, units).astype(np.float64)
        for side, choice, kept in zip(sides, choosing, found, strict=True):
            every = np.stack([score.figure(_spread(weights, groups)) for score in side], 1)
            if len(side) > 1:
                every = np.take_along_axis(every, choice.integers(0, len(side), (count, len(side) - 1)), 1)
            kept.append(every.mean(1))
    return [np.concatenate(kept) for kept in found]


def _exchanged(
    a: Sequence[Score], b: Sequence[Score], groups: Groups | None, resamples: int, random: np.random.Generator
) -> float:
    """The share of exchanges with a difference at least as large as the real one, which counts as one of them."""
    rows = len(a[0].rows)
    units = _units(rows, groups)
    pools = [Score(one.name, one.kind, np.concatenate([one.rows, other.rows])) for one, other in zip(a, b, strict=True)]

    def difference(kept: Values) -> Values:
        there, back = np.concatenate([kept, 1 - kept], 1), np.concatenate([1 - kept, kept], 1)
        total: Values = np.mean([pool.figure(there) - pool.figure(back) for pool in pools], 0)
        return total

    real = abs(float(difference(np.ones((1, rows)))[0]))
    extreme = 0
    for count in _chunks(resamples, 2 * rows):
        kept = random.integers(0, 2, (count, units), np.int8).astype(np.float64)
        # Sums in another order differ in the last digits.
        extreme += int((np.abs(difference(_spread(kept, groups))) >= real * (1 - 1e-9) - 1e-12).sum())
    return (1 + extreme) / (1 + resamples)


def _interval(value: float, drawn: Values, scores: Sequence[Score], groups: Groups | None) -> Interval:
    units, runs = _units(len(scores[0].rows), groups), len(scores)
    if units < 2 and runs < 2:
        return Interval(value, math.nan, math.nan, units, runs)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), units, runs)
