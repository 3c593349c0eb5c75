"""Semantic roles as `srl-eval.pl` of CoNLL-2005 counts them (Carreras and Màrquez, 2005).

An argument is right if its label and the borders of all its pieces are. Pieces labelled C-X continue the last X before
them; where there is none, the piece is an X itself. R-X is a label like any other. V is what was given, and does not
count.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from atinuke.core.errors import fail
from atinuke.pipelines.scores.score import Score, f1_of, over

Span = tuple[int, int, str]
"""The first word, the one after the last, and the label."""
Argument = tuple[str, tuple[tuple[int, int], ...]]
"""The label and the borders of its pieces."""
PREDICATE = "V"


@dataclass(frozen=True)
class OneRole:
    """How often a label was right, said but wrong (`excess`), and `missed`; 0 by 0 is 0."""

    name: str
    precision: float
    recall: float
    f1: float
    right: int
    excess: int
    missed: int


@dataclass(frozen=True)
class RoleFigures:
    """`score` is F1 over all arguments, a row a proposition; `perfect` the share of propositions without a mistake."""

    score: Score
    overall: OneRole
    roles: tuple[OneRole, ...]
    perfect: float


def arguments(spans: Iterable[Span]) -> frozenset[Argument]:
    """The arguments of a proposition, pieces joined.

    Raises:
        AtinukeError: two spans overlap, or one has no words.
    """
    whole: list[tuple[str, list[tuple[int, int]]]] = []
    last: dict[str, list[tuple[int, int]]] = {}
    after = 0
    for start, end, label in sorted(spans):
        if not after <= start < end:
            raise fail("the spans of a proposition have words and do not overlap", f"got {label} from {start} to {end}")
        after = end
        name = label.removeprefix("C-")
        if label != name and name in last:
            last[name].append((start, end))
            continue
        last[name] = [(start, end)]
        whole.append((name, last[name]))
    return frozenset((name, tuple(pieces)) for name, pieces in whole)


def roles(right: Sequence[Iterable[Span]], said: Sequence[Iterable[Span] | None]) -> RoleFigures:
    """The figures of propositions, each against that of the same predicate; None where it was not found, so that all of
    its arguments are missed.

    Raises:
        AtinukeError: see `arguments`; or the two sides are not as long.
    """
    if len(right) != len(said):
        raise fail("each proposition needs one answer", f"got {len(right):,} propositions and {len(said):,} answers")
    hits, excess, missed = Counter[str](), Counter[str](), Counter[str]()
    rows = []
    for wanted, given in zip(right, said, strict=True):
        key, answer = _counted(wanted), _counted(given or ())
        for counter, found in ((hits, key & answer), (excess, answer - key), (missed, key - answer)):
            counter.update(name for name, _ in found)
        common = len(key & answer)
        rows.append((common, len(key), common, len(answer)))
    table = np.array(rows, np.float64).reshape(-1, 4)
    names = sorted(hits.keys() | excess.keys() | missed.keys())
    of_each = tuple(_role(name, hits[name], excess[name], missed[name]) for name in names)
    overall = _role("all", hits.total(), excess.total(), missed.total())
    perfect = (table[:, 0] == table[:, 1]) & (table[:, 0] == table[:, 3])
    return RoleFigures(Score("f1", "f1", table), overall, of_each, float(perfect.mean()) if rows else 0.0)


def _counted(spans: Iterable[Span]) -> frozenset[Argument]:
    return frozenset(argument for argument in arguments(spans) if argument[0] != PREDICATE)


def _role(name: str, right: int, excess: int, missed: int) -> OneRole:
    counts = np.array([right, right + missed, right, right + excess], np.float64)
    recall, precision = (float(share) for share in over(counts[::2], counts[1::2]))
    return OneRole(name, precision, recall, float(f1_of(counts)), right, excess, missed)


def spans(tags: Sequence[str]) -> list[Span]:
    """The spans of BIO tags (Ramshaw and Marcus, 1995).

    Raises:
        AtinukeError: an I-X follows neither B-X nor I-X, or a tag is none.
    """
    found: list[Span] = []
    for place, tag in enumerate(tags):
        begun, _, label = tag.partition("-")
        if begun == "B" and label:
            found.append((place, place + 1, label))
        elif begun == "I" and found and found[-1][1:] == (place, label):
            found[-1] = (found[-1][0], place + 1, label)
        elif tag != "O":
            raise fail(f"tag {place + 1}, {tag}, continues nothing", "tags are O, B-X, and I-X behind B-X or I-X")
    return found


def tags(of: Iterable[Span], length: int) -> list[str]:
    """The BIO tags of the spans of a text of that many words."""
    found = ["O"] * length
    for start, end, label in of:
        found[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return found
