"""Answers as SQuAD's official scripts judge them: `evaluate-v1.1.py` (Rajpurkar et al., 2016) and `evaluate-v2.0.py`
(Rajpurkar et al., 2018).

The two differ where nothing is left of an answer: v1.1 gives it an F1 of 0, even if that is right; in v2 it is "no
answer", and right exactly where there is none.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atinuke.core.errors import fail
from atinuke.pipelines.scores.score import Score, Values, mean_score

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """The text in lower case, without punctuation, articles and more than one blank at a time."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact(right: str, said: str) -> float:
    """1 where both are the same, normalised; else 0."""
    return float(normalised(right) == normalised(said))


def token_f1(right: str, said: str) -> float:
    """The harmonic mean of precision and recall of words; 0 where one side has none."""
    wanted, given = normalised(right).split(), normalised(said).split()
    common = sum((Counter(wanted) & Counter(given)).values())
    return 2 * common / (len(wanted) + len(given)) if common else 0.0


def squad1(right: Mapping[str, Sequence[str]], said: Mapping[str, str]) -> tuple[Score, Score]:
    """Exact match and F1 of v1.1, the best over the right answers of each question; what was not answered counts 0."""
    rows = [(_best(exact, right[name], said.get(name)), _best(token_f1, right[name], said.get(name))) for name in right]
    table = np.array(rows, np.float64).reshape(-1, 2)
    return mean_score("exact match", table[:, 0]), mean_score("f1", table[:, 1])


@dataclass(frozen=True)
class Threshold:
    """The best that a threshold on the probability of "no answer" can give: the score, from 0 to 1, and where."""

    value: float
    at: float


@dataclass(frozen=True)
class Squad2:
    """Exact match and F1 of v2 over all questions, over those with an answer and over those without; where
    probabilities of "no answer" are known, also the best threshold for each, which was chosen on these very questions.
    None where there is no such question."""

    scores: tuple[Score, Score]
    answered: tuple[Score, Score] | None
    unanswerable: tuple[Score, Score] | None
    best_exact: Threshold | None
    best_f1: Threshold | None


def squad2(
    right: Mapping[str, Sequence[str]],
    said: Mapping[str, str],
    no_answer: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> Squad2:
    """The figures of v2; a question without right answers has none. An answer whose probability `no_answer` is above
    the threshold counts as none.

    Raises:
        AtinukeError: a question has neither an answer nor an empty one (the official script leaves it out, which
            flatters), or no probability.
    """
    for what, given in (("prediction", said), ("probability of no answer", no_answer)):
        missing = [name for name in right if given is not None and name not in given]
        if missing:
            raise fail(f"{len(missing):,} questions have no {what}", f"the first is {missing[0]}")
    wanted = {name: [text for text in texts if normalised(text)] or [""] for name, texts in right.items()}
    raw = np.array(
        [(_best(exact, texts, said[name]), _best(_f1_or_none, texts, said[name])) for name, texts in wanted.items()]
    )
    raw = raw.reshape(-1, 2)
    has = np.array([bool(texts) for texts in right.values()], bool)
    table = raw
    best: tuple[Threshold | None, Threshold | None] = (None, None)
    if no_answer is not None:
        chance = np.array([no_answer[name] for name in right], np.float64)
        table = np.where((chance > threshold)[:, None], ~has[:, None], raw).astype(np.float64)
        empty = np.array([not said[name] for name in right], bool)
        best = (_threshold(raw[:, 0], chance, has, empty), _threshold(raw[:, 1], chance, has, empty))
    parts = [_pair(table[rows]) if rows.any() else None for rows in (has, ~has)]
    return Squad2(_pair(table), parts[0], parts[1], *best)


def _pair(table: Values) -> tuple[Score, Score]:
    return mean_score("exact match", table[:, 0]), mean_score("f1", table[:, 1])


def _best(score: Callable[[str, str], float], right: Sequence[str], said: str | None) -> float:
    return 0.0 if said is None else max((score(text, said) for text in right), default=0.0)


def _f1_or_none(right: str, said: str) -> float:
    if not normalised(right) or not normalised(said):
        return exact(right, said)
    return token_f1(right, said)


def _threshold(
    raw: Values,
    chance: Values,
    has: NDArray[np.bool_],
    empty: NDArray[np.bool_],
) -> Threshold:
    """From answering nothing, answer one question after another, the surest first, and stop where it was best."""
    order = np.argsort(chance, kind="stable")
    gains = np.where(has, raw, np.where(empty, 0.0, -1.0))[order]
    totals = np.concatenate([[0.0], np.cumsum(gains)]) + (~has).sum()
    best = int(np.argmax(totals))
    return Threshold(float(totals[best]) / max(1, len(has)), float(chance[order[best - 1]]) if best else 0.0)
