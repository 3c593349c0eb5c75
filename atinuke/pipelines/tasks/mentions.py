"""Mentions and what they mean, out of the files that coreference comes in.

- CoNLL-2012 (`.conll`), LitBank's and GUM's too: the word in column 4, coreference in the last: `(3`, `3)`, `(3)`,
  joined by `|`; `-` or `_` is none.
- LitBank's entities (`.tsv`): a word and its layers of BIO tags, documents begun by `#file NAME`.
- GAP (`.tsv` with a header): a pronoun and two names, each of which it means or not.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from atinuke.core.errors import AtinukeError, Place, fail
from atinuke.pipelines import text
from atinuke.pipelines.scores.roles import spans
from atinuke.pipelines.tasks.conll import Sentence, sentences

Mention = tuple[int, int]
"""The first word, in the document, and the one after the last."""
BRACKET = re.compile(r"(\()?([0-9]+)(\))?")
FILE = "#file"
GAP = (
    "ID", "Text", "Pronoun", "Pronoun-offset", "A", "A-offset", "A-coref", "B", "B-offset", "B-coref", "URL",
)  # fmt: skip
TRUTH = {"TRUE": True, "FALSE": False}
GENDERS = {**dict.fromkeys(("she", "her", "hers"), "feminine"), **dict.fromkeys(("he", "his", "him"), "masculine")}
"""The pronouns of GAP, which has no reflexive ones."""


@dataclass(frozen=True)
class Document:
    """Words by sentences, and the mentions of each entity; those of one entity are of one cluster, and where only kinds
    are known (LitBank's entities) every mention is a cluster, with its kind in `kinds`."""

    name: str
    sentences: tuple[tuple[str, ...], ...]
    clusters: tuple[tuple[Mention, ...], ...]
    where: Place
    kinds: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(word for sentence in self.sentences for word in sentence)


@dataclass(frozen=True)
class Name:
    """A name in a text of GAP, its first character, and whether the pronoun means it."""

    text: str
    start: int
    meant: bool


@dataclass(frozen=True)
class Ambiguous:
    """A pronoun of GAP, its first character in the text, and the two names."""

    id: str
    text: str
    pronoun: str
    start: int
    a: Name
    b: Name
    where: Place

    @property
    def gender(self) -> str:
        return GENDERS[self.pronoun.lower()]


def coreference(file: Path) -> Iterator[Document]:
    """The documents of a file of CoNLL-2012's columns. A document in parts is several: each `#begin document` is one,
    and says by `(name); part 000` which.

    Raises:
        AtinukeError: it is not of that format, a mention does not end, or is in two clusters, with the line.
    """
    for (name, _), group in groupby(sentences(file, 5), key=lambda one: (one.document, one.begun)):
        found = list(group)
        if not name:
            raise fail(
                "has a sentence outside of a document", where=found[0].places[0], fix="begin it: #begin document"
            )
        yield _document(name, found)


def _document(name: str, found: list[Sentence]) -> Document:
    clusters: dict[str, list[Mention]] = {}
    begun: dict[str, list[tuple[int, Place]]] = {}
    owners: dict[Mention, str] = {}
    lines = [(cell[-1], where) for one in found for cell, where in zip(one.rows, one.places, strict=True)]
    for place, (cell, where) in enumerate(lines):
        for part in cell.split("|") if cell not in ("-", "_") else ():
            match = BRACKET.fullmatch(part)
            if not match or not (match[1] or match[3]):
                raise fail(f"`{part}` is no mention", "expected (3, 3) or (3)", where=where)
            number = match[2]
            mentions = clusters.setdefault(number, [])
            if match[1]:
                begun.setdefault(number, []).append((place, where))
            if match[3]:
                if not begun.get(number):
                    raise fail(f"`{part}` ends what has not begun", where=where)
                mention = begun[number].pop()[0], place + 1
                if mention in owners:
                    raise fail(f"a mention is in cluster {owners[mention]} already", f"`{part}`", where=where)
                owners[mention] = number
                mentions.append(mention)
    for number, left in begun.items():
        if left:
            raise fail(f"a mention of cluster {number} does not end", where=left[-1][1])
    words = tuple(tuple(one.column(3)) for one in found)
    return Document(name, words, tuple(map(tuple, clusters.values())), found[0].places[0])


def entities(file: Path) -> Iterator[Document]:
    """The documents of LitBank's entities, with the kind of every mention.

    Raises:
        AtinukeError: it is not of that format, or a tag continues nothing, with the line.
    """
    name, first = "", Place(str(file), 1)
    held: list[list[tuple[Place, list[str]]]] = [[]]
    for number, line in enumerate(text.lines(file), 1):
        where, bare = Place(str(file), number), line.rstrip("\r\n")
        if bare.startswith(FILE):
            if name:
                yield _entities(name, held, first)
            name, first, held = bare.removeprefix(FILE).strip(), where, [[]]
        elif not name:
            raise fail(f"must begin with `{FILE} NAME`", where=where)
        elif bare.strip():
            cells = bare.rstrip("\t").split("\t")
            before = held[-1][-1][1] if held[-1] else cells
            if len(cells) < 2 or len(cells) != len(before):
                told = f"expected {len(before)}" if len(before) > 1 else "expected a word and its tags"
                raise fail(f"has {len(cells)} cells", told, where=where)
            held[-1].append((where, cells))
        elif held[-1]:
            held.append([])
    if not name:
        raise fail("has no document", where=str(file))
    yield _entities(name, held, first)


def _entities(name: str, held: list[list[tuple[Place, list[str]]]], where: Place) -> Document:
    found: list[tuple[Mention, str]] = []
    words: list[tuple[str, ...]] = []
    before = 0
    for rows in filter(None, held):
        for layer in range(1, len(rows[0][1])):
            try:
                told = spans([cells[layer] for _, cells in rows])
            except AtinukeError as error:
                what, details = error.mistakes[0].what, error.mistakes[0].details
                raise fail(f"layer {layer}: {what}", *details, where=rows[0][0]) from None
            found += [((before + start, before + stop), kind) for start, stop, kind in told]
        words.append(tuple(cells[0] for _, cells in rows))
        before += len(rows)
    return Document(name, tuple(words), tuple((m,) for m, _ in found), where, tuple(kind for _, kind in found))


def gap(file: Path) -> Iterator[Ambiguous]:
    """The rows of GAP (Webster et al., 2018).

    Raises:
        AtinukeError: the columns are others, a pronoun is none of GAP's, or an offset does not point at its text, with
            the line.
    """
    for number, line in enumerate(text.lines(file), 1):
        where, cells = Place(str(file), number), line.rstrip("\r\n").split("\t")
        if number == 1:
            if tuple(cells) != GAP:
                raise fail("has other columns than GAP", f"expected {', '.join(GAP)}", where=where)
            continue
        if len(cells) != len(GAP):
            raise fail(f"has {len(cells)} cells, where GAP has {len(GAP)} columns", where=where)
        row = dict(zip(GAP, cells, strict=True))
        start = _offset(row, "Pronoun", where)
        if row["Pronoun"].lower() not in GENDERS:
            raise fail(f"`{row['Pronoun']}` is no pronoun of GAP", f"expected {', '.join(GENDERS)}", where=where)
        names = []
        for one in "AB":
            if row[f"{one}-coref"] not in TRUTH:
                raise fail(f"{one}-coref is `{row[f'{one}-coref']}`", "expected TRUE or FALSE", where=where)
            names.append(Name(row[one], _offset(row, one, where), TRUTH[row[f"{one}-coref"]]))
        yield Ambiguous(row["ID"], row["Text"], row["Pronoun"], start, names[0], names[1], where)


def _offset(row: dict[str, str], name: str, where: Place) -> int:
    told = row[f"{name}-offset"]
    start = int(told) if told.isdecimal() and len(told) < 10 else len(row["Text"])
    if not row[name] or row["Text"][start : start + len(row[name])] != row[name]:
        stands = f"there stands `{row['Text'][start : start + len(row[name])]}`"
        raise fail(f"{name}-offset {told} does not point at `{row[name]}`", stands, where=where)
    return start
