"""What a law is, what it says when it is broken, and the registry of all laws."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from atinuke.core.errors import Mistake
from atinuke.core.signature import Signature

if TYPE_CHECKING:
    from atinuke.testing.draw import Case
    from atinuke.testing.trial import Trial

COLOUR = re.compile(r"\x1b\[\d*m")
BRIEF = 6  # lines

Status = Literal["passed", "failed", "not applicable", "not run"]


class ViolationError(Exception):
    """A component did not do what a law expects."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(expected, got)
        self.expected = expected
        self.got = got


def brief(error: Exception) -> str:
    """An exception in a few lines and without colours; compilers explain themselves at length."""
    lines = [line for line in COLOUR.sub("", str(error)).splitlines() if line.strip()]
    more = ["..."] if len(lines) > BRIEF else []
    return "\n    ".join([f"{type(error).__name__}: {lines[0] if lines else ''}", *lines[1:BRIEF], *more])


class NotApplicableError(Exception):
    """The law says nothing about the component with these settings."""


class NotRunError(Exception):
    """The law cannot be tried on this machine."""


class LawError(AssertionError):
    """A component breaks a law: `component` and `law` by name, `case` as Hypothesis drew it, `expected` and `got`."""

    def __init__(self, component: str, law: "Law", case: "Case | None", expected: str, got: str) -> None:
        self.component = component
        self.law = law.name
        self.case = case
        self.expected = expected
        self.got = got
        details = [*(case.lines() if case else ()), f"expected {expected}", f"got {got}"]
        super().__init__(str(Mistake(f"`{component}` breaks the law `{law.name}`: {law.promise}", details=(*details,))))


@dataclass(frozen=True)
class LawResult:
    """How one component fared under one law; `reason` says why it did not apply, was not run or failed."""

    component: str
    law: str
    promise: str
    status: Status
    reason: str = ""
    error: LawError | None = None


@dataclass(frozen=True)
class Law:
    """A promise, and the function that raises `ViolationError` where one drawn case breaks it.

    `examples` cases are tried; sizes start at `low`. A law that takes a component to other sizes than those it was
    compiled for asks for `others` more sizes, of which the first are all `other_low`. `inapplicable` tells from the
    contract why the law says nothing about a component, or gives None. A `slow` law is tried on a few cases that differ
    as much as they can, and the search for the smallest case that breaks it is left out.
    """

    name: str
    promise: str
    hold: "Callable[[Trial], None]"
    examples: int
    low: int
    others: int
    other_low: int
    slow: bool
    inapplicable: Callable[[Signature], str | None]


LAWS: dict[str, Law] = {}


def law(
    promise: str,
    *,
    examples: int = 20,
    low: int = 1,
    others: int = 0,
    other_low: int = 1,
    slow: bool = False,
    inapplicable: Callable[[Signature], str | None] = lambda signature: None,
) -> "Callable[[Callable[[Trial], None]], Callable[[Trial], None]]":
    """Registers a function as the law of its name."""

    def register(function: "Callable[[Trial], None]") -> "Callable[[Trial], None]":
        name = function.__name__
        LAWS[name] = Law(name, promise, function, examples, low, others, other_low, slow, inapplicable)
        return function

    return register
