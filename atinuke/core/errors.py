"""Every error a user can cause: where it is, what was expected, what came and what to try."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A position in a file that a person wrote; `line` and `column` count from 1."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong: a headline, details (expected, got, fed by) and a remedy."""

    what: str
    where: Place | str | None = None
    details: tuple[str, ...] = ()
    fix: str | None = None

    def __str__(self) -> str:
        head = f"{self.where}  {self.what}" if self.where else self.what
        lines = [head, *(f"  {detail}" for detail in self.details)]
        if self.fix:
            lines.append(f"  to fix: {self.fix}")
        return "\n".join(lines)


class AtinukeError(Exception):
    """Carries every mistake found; the command line prints it without a traceback and exits with 2."""

    def __init__(self, *mistakes: Mistake) -> None:
        super().__init__(*mistakes)
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "\n".join(map(str, self.mistakes))


def fail(what: str, *details: str, where: Place | str | None = None, fix: str | None = None) -> AtinukeError:
    """An error with a single mistake, to be raised: `raise fail("...", where=path)`."""
    return AtinukeError(Mistake(what, where, details, fix))


def first_line(error: BaseException) -> str:
    """What another library's error says, without the pages that may follow."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def raise_all(mistakes: Iterable[Mistake]) -> None:
    """Raises `AtinukeError` with all the mistakes; does nothing when there are none."""
    found = tuple(mistakes)
    if found:
        raise AtinukeError(*found)


class Report:
    """Collects mistakes, so that all of them can be told at once."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def wrong(self, where: Place | None, what: str, *details: str, fix: str | None = None) -> None:
        """Adds a mistake."""
        self.mistakes.append(Mistake(what, where, details, fix))
