"""Propositions, a predicate with its arguments, out of the files that semantic roles come in.

- CoNLL-2005: words, part of speech, chunks, clauses, tree, entities, the predicates' lemmas, a column a predicate. What
  stands between words and lemmas may lack columns or have more: `target` counts the lemmas' column from 1.
- CoNLL-2012: `#begin document` first; 11 columns, a column a predicate, coreference. A predicate is where column 8 has
  a roleset.
- Universal PropBank (`.conllu`): CoNLL-U, rolesets in column 11, a column a predicate. An argument is its head word.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from atinuke.core.errors import Place, fail
from atinuke.pipelines import text
from atinuke.pipelines.scores.roles import Span
from atinuke.pipelines.tasks.conll import BEGIN, Sentence, sentences, spans

NONE = ("-", "_", "")  # the last: in sentences that Universal PropBank has not annotated


@dataclass(frozen=True)
class Proposition:
    """The words of a sentence, the place of the predicate among them, and its lemma; `sentence` is its number in the
    file."""

    words: tuple[str, ...]
    predicate: int
    lemma: str
    sentence: int


@dataclass(frozen=True)
class Read:
    """A proposition, its arguments, the document that it stands in, and its line."""

    given: Proposition
    right: tuple[Span, ...]
    document: str
    where: Place


def propositions(file: Path, target: int = 7) -> Iterator[Read]:
    """The propositions of a file, in the order of their predicates.

    Raises:
        AtinukeError: it is not of any of the formats, with the line.
    """
    if (file.with_suffix("") if file.suffix == ".gz" else file).suffix == ".conllu":
        for sentence in sentences(file, 10, tabs=True):
            yield from _universal(sentence)
        return
    if next(islice(text.lines(file), 1), "").startswith(BEGIN):
        for sentence in sentences(file, 12):
            lemmas = [row[6] if row[7] not in NONE else "-" for row in sentence.rows]
            yield from _brackets(sentence, 3, lemmas, 11, len(sentence.rows[0]) - 1)
        return
    for sentence in sentences(file, target):
        yield from _brackets(sentence, 0, sentence.column(target - 1), target, len(sentence.rows[0]))


def _brackets(sentence: Sentence, word: int, lemmas: list[str], first: int, last: int) -> Iterator[Read]:
    """Propositions whose arguments are brackets in the columns from `first` until `last`."""
    predicates = [place for place, lemma in enumerate(lemmas) if lemma != "-"]
    _one_column_each(sentence, predicates, last - first)
    words = tuple(sentence.column(word))
    for number, place in enumerate(predicates):
        found = spans(sentence.column(first + number), sentence.places)
        given = Proposition(words, place, lemmas[place], sentence.number)
        yield Read(given, tuple(found), sentence.document, sentence.places[place])


def _universal(sentence: Sentence) -> Iterator[Read]:
    """Of a sentence of CoNLL-U; tokens that are several words, and words that are not written, are left out."""
    kept = [i for i, row in enumerate(sentence.rows) if row[0].isdecimal()]
    rows = [sentence.rows[i] for i in kept]
    places = tuple(sentence.places[i] for i in kept)
    for number, (row, where) in enumerate(zip(rows, places, strict=True), 1):
        if int(row[0]) != number:
            raise fail(f"is word {row[0]} of its sentence", f"expected {number}", where=where)
    words = tuple(row[1] for row in rows)
    predicates = [place for place, row in enumerate(rows) if row[10:] and row[10] not in NONE]
    filled = len(sentence.rows[0]) - 11
    if not predicates and filled == 1 and all(row[11] in NONE for row in rows):
        filled = 0  # where there is no predicate there is an empty column
    _one_column_each(sentence, predicates, max(0, filled))
    for number, place in enumerate(predicates):
        labels = [row[11 + number] for row in rows]
        found = tuple((i, i + 1, label) for i, label in enumerate(labels) if label not in NONE)
        yield Read(Proposition(words, place, rows[place][10], sentence.number), found, "", places[place])


def _one_column_each(sentence: Sentence, predicates: list[int], columns: int) -> None:
    if len(predicates) != columns:
        raise fail(
            f"a sentence with {len(predicates)} predicates has {columns} columns of arguments",
            where=sentence.places[next(chain(predicates, [0]))],
            fix="give the task the file in its official columns",
        )
