"""Pairs of sentences out of texts, for the prediction of what comes next (Devlin et al., 2019)."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atinuke.core.errors import fail
from atinuke.pipelines.rows import Row

SENTENCE = re.compile(r"(?<=[.!?])\s+")


def split(document: str, by: str) -> list[str]:
    """The sentences (they end in one of `.!?` before white space) or the lines of a document that are not empty."""
    parts = document.splitlines() if by == "line" else SENTENCE.split(document)
    return [" ".join(part.split()) for part in parts if part.strip()]


class Sentences:
    """Rows with a `first` sentence, a `second` one, and `next`: whether it comes next, `yes` or `no`.

    There is a row for each two neighbours of a document. A coin that follows from `seed` and the number of the row
    decides for half of them; these get, as second, any sentence of any document that is another than what comes next.

    Raises:
        AtinukeError: no document has two sentences, or all that could be the second are the same.
    """

    def __init__(self, documents: Sequence[Sequence[str]], seed: int, fingerprint: str, where: str) -> None:
        self._sentences = [sentence for document in documents for sentence in document]
        self._where, self._seed = where, seed
        starts: list[int] = []
        first = 0
        for document in documents:
            starts += range(first, first + len(document) - 1)
            first += len(document)
        self._starts = np.array(starts, np.int64)
        if not starts or len(set(self._sentences)) < 2:
            found = f"{len(self._sentences):,} sentences in {len(documents):,} documents"
            raise fail("no document has two different sentences", found, where=where, fix="see `by` and `split`")
        self.fingerprint: str = hashlib.sha256(f"{fingerprint} {seed} {self._sentences}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int, /) -> Row:
        start = int(self._starts[index])
        first, second = self._sentences[start : start + 2]
        random = np.random.default_rng([self._seed, index])
        told = "yes"
        if random.random() < 0.5:
            told, true = "no", second
            while second == true:
                second = self._sentences[int(random.integers(len(self._sentences)))]
        return Row({"first": first, "second": second, "next": told}, f"{self._where} pair {index + 1:,}", Path())
