"""A strict YAML document: YAML 1.2 scalars, every value with its place, every mistake collected.

Only plain data comes out (dict, list, str, int, float, bool, None); a key is always the text that stands there.
Anchors, aliases, tags, repeated keys, collections as keys and deep nesting are mistakes, so that a file from a stranger
can neither run code nor blow up.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from atinuke.core.errors import Mistake, Place, fail

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_DIGITS = 40

KeyPath = tuple[str | int, ...]

INT = re.compile(r"[-+]?[0-9]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}


@dataclass
class Document:
    """`data` is the plain value; `places` maps a path such as `("nodes", "E", "with")` to where it stands."""

    file: str
    data: Any = None
    places: dict[KeyPath, Place] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """The place of `path`, or of the nearest thing around it that stands in the file."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place(self.file, 1))


def read_text(path: Path) -> str:
    """The text of a UTF-8 file of at most 1 MB.

    Raises:
        AtinukeError: the file is missing, unreadable, too large or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror or error}", where=str(path), fix="name a readable file") from None
    if len(raw) > MAX_BYTES:
        raise fail(
            "is too large", f"at most {MAX_BYTES:,} bytes", where=str(path), fix="check that it is the right file"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise fail(
            "is not UTF-8 text", f"byte {error.start} cannot be decoded", where=str(path), fix="save it as UTF-8"
        ) from None


def parse(text: str, file: str = "<text>") -> Document:
    """Reads `text` as one YAML document; never raises, `Document.mistakes` says what is wrong."""
    document = Document(file)
    try:
        events: Iterator[Any] = yaml.parse(text, Loader=_loader())
        _read(events, document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1)
        document.mistakes.append(Mistake(f"is not valid YAML: {error.problem or error.context}", where))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        document.mistakes.append(Mistake(f"is not valid YAML: {str(error).splitlines()[0]}", Place(file, 1)))
    return document


def _loader() -> Any:
    """The C parser where libyaml is there: the same events, about ten times faster."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class _Open:
    """A collection that is being read; `key` is the key whose value comes next."""

    value: dict[str, Any] | list[Any]
    path: KeyPath
    key: str | None = None
    skip: bool = False


class _Skip(str):
    """Stands for a key that was refused: its value is read and dropped."""


def _read(events: Iterator[Any], document: Document) -> None:
    stack: list[_Open] = []
    documents = 0

    def wrong(event: Any, what: str, *details: str, fix: str | None = None) -> None:
        document.mistakes.append(Mistake(what, where(event), details, fix))

    def where(event: Any) -> Place:
        return Place(document.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def path() -> KeyPath:
        if not stack:
            return ()
        top = stack[-1]
        return (*top.path, top.key or "" if isinstance(top.value, dict) else len(top.value))

    def add(value: Any) -> None:
        if not stack:
            document.data = value
        elif isinstance(top := stack[-1].value, list):
            top.append(value)
        else:
            key = stack[-1].key
            stack[-1].key = None
            assert key is not None
            if not isinstance(key, _Skip):
                top[key] = value

    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                wrong(event, "has more than one document", fix="keep one document a file")
                return
        if isinstance(event, yaml.AliasEvent):
            wrong(event, f"alias `*{event.anchor}` is not allowed", fix="write the value out, or make it a dim")
            event = yaml.ScalarEvent(None, None, (True, True), "null", event.start_mark, event.end_mark)
        elif isinstance(event, yaml.NodeEvent):
            if event.anchor:
                wrong(event, f"anchor `&{event.anchor}` is not allowed", fix="write the value where it is used")
            tag = getattr(event, "tag", None)
            if tag and tag != "!":
                wrong(event, f"tag `{tag}` is not allowed", fix="write a plain value")

        awaiting_key = bool(stack) and isinstance(stack[-1].value, dict) and stack[-1].key is None
        if isinstance(event, yaml.ScalarEvent):
            if awaiting_key:
                key: str = event.value
                if key in stack[-1].value:
                    first = document.place((*stack[-1].path, key))
                    wrong(
                        event, f"key `{key}` is repeated", f"first given on line {first.line}", fix="keep one of them"
                    )
                    key = _Skip(key)
                else:
                    document.places.setdefault((*stack[-1].path, key), where(event))
                stack[-1].key = key
            else:
                document.places.setdefault(path(), where(event))
                try:
                    add(scalar(event.value, plain=event.implicit[0]))
                except ValueError as error:
                    wrong(event, str(error))
                    add(None)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if awaiting_key:
                wrong(event, "a key must be a plain word", fix="quote it, or check the braces")
                stack[-1].key = _Skip("?")
            if len(stack) >= MAX_DEPTH:
                wrong(event, f"is nested deeper than {MAX_DEPTH} levels", fix="flatten it; use blocks for repetition")
                return
            document.places.setdefault(path(), where(event))
            opened = _Open({} if isinstance(event, yaml.MappingStartEvent) else [], path(), skip=awaiting_key)
            stack.append(opened)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            closed = stack.pop()
            if not closed.skip:
                add(closed.value)


def scalar(text: str, plain: bool = True) -> Any:
    """A YAML 1.2 core scalar: `on` and `1_000` are strings, `1e-3` is a number.

    Raises:
        ValueError: a number that is too long or not finite.
    """
    if not plain:
        return text
    if text in CONSTANTS:
        return CONSTANTS[text]
    if INT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(f"a number of {len(text)} digits is not allowed (at most {MAX_DIGITS})")
        return int(text)
    if FLOAT.fullmatch(text):
        number = float(text)
        if math.isfinite(number):
            return number
        raise ValueError(f"`{text}` is not a finite number")
    if text.lower() in {".nan", ".inf", "+.inf", "-.inf"}:
        raise ValueError(f"`{text}` is not a finite number")
    return text
