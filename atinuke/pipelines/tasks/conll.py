"""Sentences out of the column files of the CoNLL tasks: a token a line, a blank line behind each sentence."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from atinuke.core.errors import Place, fail
from atinuke.pipelines import text

BLANKS = re.compile("[ \t]+")  # other white space may stand in a word
BEGIN, END = "#begin document", "#end document"


@dataclass(frozen=True)
class Sentence:
    """The cells of each token, with the place of each line; `document` is what `#begin document` says, or empty, and
    `begun` the place where it says so; `number` counts from 0 in the file."""

    document: str
    begun: Place | None
    number: int
    rows: tuple[tuple[str, ...], ...]
    places: tuple[Place, ...]

    def column(self, index: int) -> list[str]:
        return [row[index] for row in self.rows]


def sentences(file: Path, least: int, tabs: bool = False) -> Iterator[Sentence]:
    """The sentences of a file; cells stand between blanks, and each line has as many as the first of its sentence, at
    least `least`. With `tabs`, as in CoNLL-U, cells stand between single tabs, and a sentence may begin with comments.

    Raises:
        AtinukeError: the file is unreadable or empty, a line has other cells, or a document has no word or end.
    """
    document, number, before = "", 0, 0
    open_at: Place | None = None
    rows: list[tuple[str, ...]] = []
    places: list[Place] = []
    for line_number, line in enumerate(text.lines(file), 1):
        where, bare = Place(str(file), line_number), line.strip()
        mark = next((mark for mark in (BEGIN, END) if bare.startswith(mark)), None)
        if rows and (not bare or mark):
            yield Sentence(document, open_at, number, tuple(rows), tuple(places))
            rows, places, number = [], [], number + 1
        if mark and (mark == BEGIN) == (open_at is not None):
            what = "begins a document within another" if mark == BEGIN else "ends a document that has not begun"
            raise fail(what, *([f"it begins in line {open_at.line}"] if open_at else []), where=where)
        if mark == END and number == before:
            raise fail("has a document without a word", where=open_at)
        if mark:
            before = number
            document, open_at = (bare.removeprefix(BEGIN).strip(), where) if mark == BEGIN else ("", None)
        elif bare and not (tabs and not rows and bare.startswith("#")):
            cells = tuple(line.rstrip("\r\n").split("\t") if tabs else BLANKS.split(line.strip(" \t\r\n")))
            expected = len(rows[0]) if rows else None
            if len(cells) < least or len(cells) != (expected or len(cells)):
                wanted = f"{expected} as the lines before" if expected else f"at least {least}"
                raise fail(f"has {len(cells)} cells", f"expected {wanted}", where=where)
            rows.append(cells)
            places.append(where)
    if rows:
        yield Sentence(document, open_at, number, tuple(rows), tuple(places))
    if open_at:
        raise fail("has a document that does not end", f"there is no line `{END}`", where=open_at)
    if not number and not rows:
        raise fail("has no sentence", where=str(file))


def spans(cells: Sequence[str], places: Sequence[Place]) -> list[tuple[int, int, str]]:
    """The spans of a column of brackets, `(A1*`, `*`, `*)`: first word, the one after the last, label.

    Raises:
        AtinukeError: a cell is none, or spans nest or do not close.
    """
    found: list[tuple[int, int, str]] = []
    begun: tuple[int, str] | None = None
    for place, (cell, where) in enumerate(zip(cells, places, strict=True)):
        opens, star, closes = cell.partition("*")
        label = opens.removeprefix("(")
        if not star or (opens and (not label or opens == label or "(" in label)) or closes not in ("", ")"):
            raise fail(f"`{cell}` is no bracket of an argument", "expected (LABEL*, *, *) or (LABEL*)", where=where)
        if opens:
            if begun:
                told = f"which begins {place - begun[0]} lines above"
                raise fail(f"`{cell}` begins within {begun[1]}", told, where=where)
            begun = place, label
        if closes:
            if not begun:
                raise fail(f"`{cell}` ends what has not begun", where=where)
            found.append((begun[0], place + 1, begun[1]))
            begun = None
    if begun:
        raise fail(f"{begun[1]} does not end in its sentence", where=places[begun[0]])
    return found
