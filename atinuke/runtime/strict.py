"""JSON that nobody has to trust: every value is asked for by its type, its range and its place."""

import json
import math
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

from atinuke.core.errors import AtinukeError, fail

LARGEST = 16 << 20  # bytes of a file
MOST = 100_000  # values of a list or mapping
LONGEST = 10_000  # characters of a text
Read = TypeVar("Read")
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Value:
    """A value of a JSON file, with its place in it. Each method says what it must be, and raises AtinukeError where it
    is something else."""

    def __init__(self, data: Any, file: str, path: str = "") -> None:
        self.data = data
        self.file = file
        self.path = path

    def wrong(self, expected: str) -> AtinukeError:
        """The error that says what the value must be."""
        return fail(f"{self.path or 'the file'} must be {expected}, not {brief(self.data)}", where=self.file)

    def record(self, *keys: str) -> dict[str, Self]:
        """A mapping of exactly these keys."""
        found = self.mapping()
        for key in found.keys() - set(keys):
            raise fail(f"{self._below(key)} is not known", where=self.file)
        for key in keys:
            if key not in found:
                raise fail(f"{self._below(key)} is missing", where=self.file)
        return found

    def mapping(self, names: re.Pattern[str] | None = None) -> dict[str, Self]:
        """A mapping, of keys that match `names`."""
        if not isinstance(self.data, dict) or len(self.data) > MOST:
            raise self.wrong("a mapping")
        for key in self.data:
            if names and not (len(key) <= LONGEST and names.fullmatch(key)):
                raise fail(f"{self._below(key)} is not a name that can stand here", where=self.file)
        return {key: type(self)(value, self.file, self._below(key)) for key, value in self.data.items()}

    def items(self, low: int = 0, high: int = MOST) -> list[Self]:
        """A list of `low` to `high` values."""
        if not isinstance(self.data, list) or not low <= len(self.data) <= high:
            raise self.wrong(f"a list of {low} to {high} values")
        return [type(self)(value, self.file, f"{self.path}[{i}]") for i, value in enumerate(self.data)]

    def text(self, pattern: re.Pattern[str] | None = None, like: str = "a text") -> str:
        """A text that matches `pattern`, which an error calls `like`. Half a surrogate pair is not text."""
        text = self.data
        if not isinstance(text, str) or len(text) > LONGEST or (pattern and not pattern.fullmatch(text)):
            raise self.wrong(like)
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise self.wrong(like)
        return text

    def choice(self, known: Collection[str]) -> str:
        """One of a few words."""
        if not isinstance(self.data, str) or self.data not in known:
            raise self.wrong(f"one of {', '.join(known)}")
        return self.data

    def whole(self, low: int = 1, high: int = 1 << 40) -> int:
        """A whole number in a range."""
        if type(self.data) is not int or not low <= self.data <= high:
            raise self.wrong(f"a whole number of {low} to {high}")
        return self.data

    def number(self) -> float:
        """A number that is finite as a float."""
        if type(self.data) not in (int, float) or not abs(self.data) < 1e300:
            raise self.wrong("a number")
        return float(self.data)

    def positive(self) -> float:
        """A number above 0."""
        if not self.number() > 0:
            raise self.wrong("a number above 0")
        return self.number()

    def flag(self) -> bool:
        """True or false."""
        if type(self.data) is not bool:
            raise self.wrong("true or false")
        return self.data

    def maybe(self, read: Callable[[Self], Read]) -> Read | None:
        """What `read` makes of it; None where it is null."""
        return None if self.data is None else read(self)

    def _below(self, key: str) -> str:
        shown = key if WORD.fullmatch(key) and len(key) < 60 else f"[{brief(key)}]"
        return f"{self.path}.{shown}" if self.path and not shown.startswith("[") else f"{self.path}{shown}"


def brief(data: Any) -> str:
    """A value as JSON on one line, cut short; nothing in it can steer a terminal."""
    if isinstance(data, dict | list):
        return f"a {'mapping' if isinstance(data, dict) else 'list'} of {len(data)}"
    text = json.dumps(data[:60] if isinstance(data, str) else data)
    return text if len(text) <= 60 else f"{text[:56]}..."


def read_json(file: Path) -> Value:
    """What is in a JSON file.

    Raises:
        AtinukeError: it is missing, not a plain file, larger than 16 MiB, not JSON in UTF-8, or holds a key twice, NaN,
            an infinite number or values nested deeper than Python goes.
    """
    where = str(file)
    try:
        if file.is_symlink() or not file.is_file():
            raise fail("there is no such file", where=where)
        with file.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror or error}", where=where) from None
    if len(content) > LARGEST:
        raise fail(f"is larger than {LARGEST >> 20} MiB", where=where)
    try:
        data = json.loads(content.decode(), object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise fail("is nested too deep", where=where) from None
    except ValueError as error:
        raise fail(f"is not strict JSON: {error}", where=where) from None
    return Value(data, where)


def require_format(value: Value, known: int, oldest: int | None = None) -> int:
    """The number of a file's format, its key `atinuke`, which must be the one that is known, or one from the `oldest`
    on; told before anything else is.

    Raises:
        AtinukeError: it is another, or none.
    """
    number = value.data.get("atinuke") if isinstance(value.data, dict) else None
    if type(number) is not int or number < 1:
        raise fail(f"`atinuke` must be the format's number, {known}, not {brief(number)}", where=value.file)
    if not (oldest or known) <= number <= known:
        what = f"is of format {brief(number)}; this Atinuke reads format {known}"
        raise fail(what, where=value.file, fix="update Atinuke")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {brief(twice)} is there twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{brief(text)} is not a finite number")
    return number
