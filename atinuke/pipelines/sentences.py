"""Pairs of sentences out of texts, for the prediction of what comes next (Devlin et al., 2019)."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from atinuke.core.errors import fail
from atinuke.pipelines import text
from atinuke.pipelines.rows import Names, Row, Rows, Source, fingerprint

SENTENCE = re.compile(r"(?<=[.!?])\s+")


def split(document: str, by: str) -> list[str]:
    """The sentences (they end in one of `.!?` before white space) or the lines of a document that are not empty."""
    parts = document.splitlines() if by == "line" else SENTENCE.split(document)
    return [" ".join(part.split()) for part in parts if part.strip()]


class Sentences(Source):
    """Pairs of neighbouring sentences, or lines, of texts (see `atinuke.pipelines.text` for `field` and `split`).

    The columns are `first`, `second` and `next`: `yes`, or `no` for half of them, whose second is another sentence. The
    same `seed` gives the same pairs.
    """

    name: Literal["sentences"] = "sentences"
    files: Names
    by: Literal["sentence", "line"] = "sentence"
    field: str = "text"
    split: text.Split = "file"
    seed: Annotated[int, Field(ge=0)] = 0

    def open(self) -> Rows:
        found = text.find(self.files)
        documents = [
            split(document, self.by) for file in found for document in text.documents(file, self.field, self.split)
        ]
        return Pairs(documents, self.seed, fingerprint(found), ", ".join(self.files))


class Pairs:
    """Rows with a `first` sentence, a `second` one, and `next`: whether it comes next, `yes` or `no`.

    There is a row for each two neighbours of a document. A coin that follows from `seed` and the number of the row
    decides for half of them; these get, as second, any sentence of any document that is another than what comes next.

    Raises:
        AtinukeError: no document has two sentences, or all that could be the second are the same.
    """

    def __init__(self, documents: Sequence[Sequence[str]], seed: int, digest: str, where: str) -> None:
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
        self.fingerprint: str = hashlib.sha256(f"{digest} {seed} {self._sentences}".encode()).hexdigest()

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
