"""SQuAD's files: questions about texts with their answers, and predictions by id."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atinuke.core.errors import fail


@dataclass(frozen=True)
class Answer:
    """A right answer: what it says, and its first character in the text."""

    text: str
    start: int


def questions(file: Path) -> Iterator[tuple[str, int, str, str, dict[str, Any]]]:
    """Title, number of the paragraph, its text, where the question stands, and the question.

    Raises:
        AtinukeError: the file is not of the format.
    """
    document = _document(file)
    for i, article in enumerate(_list(document, "data", str(file))):
        at = f"{file} data[{i}]"
        title = article.get("title", "") if isinstance(article, dict) else ""
        for j, paragraph in enumerate(_list(article, "paragraphs", at)):
            within = f"{at}.paragraphs[{j}]"
            context = text(paragraph, "context", within)
            for k, qa in enumerate(_list(paragraph, "qas", within)):
                yield str(title), j, context, f"{within}.qas[{k}]", qa


def answers(qa: Mapping[str, Any], context: str, where: str) -> tuple[Answer, ...] | None:
    """The answers of a question about a text; None where it has no `answers`.

    Raises:
        AtinukeError: one is empty, or does not stand in the text where it says.
    """
    return tuple(_answer(one, context, where) for one in _list(qa, "answers", where)) if "answers" in qa else None


def predicted(file: Path) -> dict[str, str]:
    """The answers of a file of predictions, by id.

    Raises:
        AtinukeError: the file is not of the format.
    """
    said = _document(file)
    if not isinstance(said, dict) or not all(isinstance(one, str) for one in said.values()):
        raise fail("is not an object of texts by id", where=str(file), fix="give a file in SQuAD's format")
    return said


def _document(file: Path) -> Any:
    try:
        raw = file.read_bytes()
        return json.loads(gzip.decompress(raw) if file.suffix == ".gz" else raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise fail("is not a whole gzip file", str(error), where=str(file), fix="copy it again") from None
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror or error}", where=str(file)) from None
    except (ValueError, RecursionError) as error:
        raise fail("is not JSON, or not all of it", str(error), where=str(file)) from None


def _list(value: Any, key: str, where: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise fail(f"has no list `{key}`", _has(value, key), where=where, fix="give a file in SQuAD's format")
    return found


def text(value: Any, key: str, where: str) -> str:
    """A text of an object by its key; raises AtinukeError."""
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, str):
        raise fail(f"has no text `{key}`", _has(value, key), where=where, fix="give a file in SQuAD's format")
    return found


def _has(value: Any, key: str) -> str:
    """What there is in place of a list or a text."""
    if not isinstance(value, dict):
        return f"it is {json.dumps(value):.40}"
    return f"it is {json.dumps(value[key]):.40}" if key in value else f"it has: {', '.join(value) or 'nothing'}"


def _answer(value: Any, context: str, where: str) -> Answer:
    said = text(value, "text", where)
    start = value.get("answer_start")
    if isinstance(start, bool) or not isinstance(start, int) or not 0 <= start <= len(context) - len(said):
        told = f"answer_start is {start!r:.40}; the text has {len(context):,} characters"
        raise fail(f"the answer `{said:.40}` is outside the text", told, where=where)
    if context[start : start + len(said)] != said:
        told = f"at {start:,} stands `{context[start : start + len(said)]:.40}`"
        raise fail(f"the answer `{said:.40}` does not stand where it says", told, where=where)
    if not said.strip():
        raise fail("has an empty answer", where=where)
    return Answer(said, start)
