"""Whether the vectors of two sides find each other: for a picture its text, for a text its pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.scores.share import Share, share

Vectors = NDArray[np.float64]
AT = (1, 5, 10)
CHUNK = 512  # queries whose scores are held at once


@dataclass(frozen=True)
class Recall:
    """The share of queries with a right candidate among the best `at`; `chance` is what random order gives."""

    at: int
    found: Share
    chance: float


@dataclass(frozen=True)
class Direction:
    """One side finds the other. Of `candidates`, the `median_rank` of the best right one: 1 is perfect, `chance_rank`
    is the median under random order."""

    recalls: tuple[Recall, ...]
    median_rank: float
    chance_rank: int
    queries: int
    candidates: int


@dataclass(frozen=True)
class RetrievalFigures:
    """`there`: the first side finds the second; `back`: the other way. `pairs` are the rows with both sides."""

    there: Direction
    back: Direction
    pairs: int


def retrieval(
    first: Vectors, second: Vectors, first_things: Sequence[object], second_things: Sequence[object]
) -> RetrievalFigures:
    """The figures of paired vectors `[pairs, width]`, compared by their products.

    `first_things[i]` says what stands on the first side of pair i. Equal things are one thing, with the vector of where
    it comes first: it is asked for once and is one candidate, and whatever it is paired with anywhere is right for it.
    So a text of five pictures finds any of the five, and each of these finds the one text.

    A candidate that scores like the best right one counts as better, so that a model which tells nothing apart finds
    nothing.
    """
    a, b = _numbers(first_things), _numbers(second_things)
    ones, others = first[_first(a)], second[_first(b)]
    right = np.zeros((len(ones), len(others)), bool)
    right[a, b] = True
    return RetrievalFigures(_direction(ones, others, right), _direction(others, ones, right.T), len(first))


def ranks(
    first: Vectors, second: Vectors, first_things: Sequence[object], second_things: Sequence[object]
) -> tuple[list[int | None], list[int | None]]:
    """The rank of the best right one for each pair, there and back, as `retrieval` counts; none where its thing was
    asked for in an earlier pair."""
    a, b = _numbers(first_things), _numbers(second_things)
    right = np.zeros((a.max() + 1, b.max() + 1), bool)
    right[a, b] = True
    found = []
    for one, other, asked, true in ((first, second, (a, b), right), (second, first, (b, a), right.T)):
        firsts = _first(asked[0])
        told: list[int | None] = [None] * len(one)
        for place, rank in zip(firsts, _all_ranks(one[firsts], other[_first(asked[1])], true), strict=True):
            told[place] = int(rank)
        found.append(told)
    return found[0], found[1]


def recalls(where: str, found: Sequence[int | None]) -> tuple[Score, ...]:
    """Recall by the ranks of pairs; those without do not count."""
    return tuple(
        Score(
            f"recall@{at}{where}",
            "mean",
            np.array([(0, 0) if rank is None else (rank <= at, 1) for rank in found], np.float64),
        )
        for at in AT
    )


def reciprocal(where: str, found: Sequence[int | None]) -> Score:
    """The mean of 1 over the rank (MRR; Voorhees, 1999); pairs without do not count."""
    rows = [(0, 0) if rank is None else (1 / rank, 1) for rank in found]
    return Score(f"mrr{where}", "mean", np.array(rows, np.float64))


def _numbers(things: Sequence[object]) -> NDArray[np.int64]:
    """The things numbered in the order in which they come."""
    known: dict[object, int] = {}
    return np.array([known.setdefault(thing, len(known)) for thing in things], np.int64)


def _first(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each thing comes first."""
    return np.unique(numbers, return_index=True)[1]


def _direction(queries: Vectors, candidates: Vectors, right: NDArray[np.bool_]) -> Direction:
    found = _all_ranks(queries, candidates, right)
    chances = _chances(right.sum(1), len(candidates))
    recalls = tuple(
        Recall(at, share(int((found <= at).sum()), len(found)), float(chances[min(at, len(candidates)) - 1]))
        for at in AT
    )
    chance_rank = int(np.argmax(chances >= 0.5)) + 1
    return Direction(recalls, float(np.median(found)), chance_rank, len(queries), len(candidates))


def _all_ranks(queries: Vectors, candidates: Vectors, right: NDArray[np.bool_]) -> NDArray[np.int64]:
    starts = range(0, len(queries), CHUNK)
    return np.concatenate([_ranks(queries[at : at + CHUNK] @ candidates.T, right[at : at + CHUNK]) for at in starts])


def _ranks(scores: Vectors, right: NDArray[np.bool_]) -> NDArray[np.int64]:
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    ranks: NDArray[np.int64] = 1 + ((scores >= best) & ~right).sum(1)
    return ranks


def _chances(right: NDArray[np.int64], candidates: int) -> NDArray[np.float64]:
    """The mean probability that one of the first k in random order is right, for k from 1 to all."""
    mean = np.zeros(candidates)
    for count, often in zip(*np.unique(right, return_counts=True), strict=True):
        taken = np.arange(candidates)
        none = np.cumprod(np.maximum(candidates - count - taken, 0) / (candidates - taken))
        mean += (1 - none) * often / len(right)
    return mean
