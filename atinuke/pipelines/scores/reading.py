"""Labels that were read against those that are there, what CTC is measured by; needs `atinuke[evaluation]`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atinuke.core.errors import fail
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.scores.share import Share, share

Labels = tuple[int, ...]
SAMPLES = 5


@dataclass(frozen=True)
class ReadingSample:
    """A row: what is there and what was read, the labels by name."""

    right: tuple[str, ...]
    read: tuple[str, ...]


@dataclass(frozen=True)
class ReadingFigures:
    """`error_rate` is the edit distance over all rows by the number of their `labels`: the word error rate where labels
    are words. `whole` is the share of rows without any error. `samples` are the first rows."""

    way: str
    error_rate: float
    substitutions: int
    deletions: int
    insertions: int
    labels: int
    whole: Share
    samples: tuple[ReadingSample, ...]


def reading(way: str, right: Sequence[Labels], read: Sequence[Labels], names: Sequence[str]) -> ReadingFigures:
    """The figures of rows of labels, counted by jiwer.

    Raises:
        AtinukeError: there is no label at all, or jiwer is not installed.
    """
    jiwer = _jiwer()
    labels = sum(map(len, right))
    if not labels:
        raise fail("no row has a label to be read")
    # Numbers, not names: a name with a space in it is one label.
    found = jiwer.process_words([_line(row) for row in right], [_line(row) for row in read])
    whole = share(sum(a == b for a, b in zip(right, read, strict=True)), len(right))
    samples = tuple(
        ReadingSample(tuple(_name(i, names) for i in a), tuple(_name(i, names) for i in b))
        for a, b in zip(right[:SAMPLES], read[:SAMPLES], strict=True)
    )
    edits = found.substitutions, found.deletions, found.insertions
    return ReadingFigures(way, sum(edits) / labels, *edits, labels, whole, samples)


def word_errors(right: Sequence[str], read: Sequence[str]) -> Score:
    """The word error rate of texts: words are what stands between blanks, so whoever wants more, such as one case,
    makes it so before.

    Raises:
        AtinukeError: no text has a word, or jiwer is not installed.
    """
    if not any(text.split() for text in right):
        raise fail("no text has a word to be read")
    return _errors("WER", right, read)


def label_errors(name: str, right: Sequence[Labels], read: Sequence[Labels]) -> Score:
    """The error rate of labels, each row's.

    Raises:
        AtinukeError: jiwer is not installed.
    """
    return _errors(name, [_line(row) for row in right], [_line(row) for row in read])


def _errors(name: str, right: Sequence[str], read: Sequence[str]) -> Score:
    jiwer = _jiwer()
    found = [jiwer.process_words(wanted, said) for wanted, said in zip(right, read, strict=True)]
    edits = [(one.substitutions + one.deletions + one.insertions, len(one.references[0])) for one in found]
    return Score(name, "error rate", np.array(edits, np.float64))


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError:
        raise fail("the error rate needs jiwer", fix="pip install 'atinuke[evaluation]'") from None
    return jiwer


def _line(row: Labels) -> str:
    return " ".join(map(str, row))


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if label < len(names) else str(label)
