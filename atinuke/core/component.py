"""The records a plugin yields. They hold import strings, so that listing them imports nothing heavy."""

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atinuke.core.errors import fail

if TYPE_CHECKING:
    from atinuke.core.graph import Graph

NAME = re.compile(r"([a-z][a-z0-9_-]*:)?[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?")
WORD = re.compile(r"[a-z][a-z0-9_]*")
TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def import_target(target: str) -> Any:
    """The attribute that an import string such as `package.module:Class` names.

    Raises:
        AtinukeError: the module cannot be imported or lacks the attribute.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise fail(
            f"`{target}` cannot be imported",
            f"{type(error).__name__}: {error}",
            fix="install what it needs, or correct the plugin's import string",
        ) from error


@dataclass(frozen=True)
class Component:
    """A layer that graph files can name.

    `name` is `kind.variant` (a third party's gets its plugin's name in front: `strided:text.embedding`); `target` and
    `strategy` are import strings (`package.module:attribute`). `strategy` names a function that returns a Hypothesis
    strategy of settings, for a component whose settings do not go together at random.
    """

    name: str
    target: str
    summary: str
    strategy: str | None = None

    def __post_init__(self) -> None:
        _require(NAME.fullmatch(self.name), self.name, "a component's name must look like `kind.variant`")
        _require(isinstance(self.summary, str), repr(self.summary), f"the summary of `{self.name}` must be a text")
        _require(TARGET.fullmatch(self.target), self.target, "a target must look like `package.module:Class`")
        _require(
            self.strategy is None or TARGET.fullmatch(self.strategy),
            str(self.strategy),
            "a strategy must look like `package.module:function`",
        )

    def load(self) -> type:
        """The class itself; this is where its module is imported."""
        cls = import_target(self.target)
        if not inspect.isclass(cls):
            raise fail(f"`{self.target}` is not a class", fix=f"let component `{self.name}` name an nn.Module class")
        return cls


@dataclass(frozen=True)
class Choice:
    """An objective, a source of rows or a task that recipes can name.

    `name` is one word (a third party's gets its plugin's name in front: `strided:focal`); `target` is the import string
    of its class, whose fields are the settings.
    """

    name: str
    target: str
    summary: str

    def __post_init__(self) -> None:
        _require(WORD.fullmatch(self.name), self.name, "the name of an objective, source or task must be a word")
        _require(isinstance(self.summary, str), repr(self.summary), f"the summary of `{self.name}` must be a text")
        _require(TARGET.fullmatch(self.target), self.target, "a target must look like `package.module:Class`")


@dataclass(frozen=True)
class Backend:
    """A target that models are compiled for.

    `name` is one word (a third party's gets its plugin's name in front). `builder` is the import string of a subclass
    of `atinuke.compile.builder.Builder`, which makes the files with torch; `runner` that of a subclass of
    `atinuke.runtime.runner.Runner`, which runs them, without torch where the target needs none.
    """

    name: str
    builder: str
    runner: str
    summary: str

    def __post_init__(self) -> None:
        _require(WORD.fullmatch(self.name), self.name, "the name of a backend must be a word")
        _require(isinstance(self.summary, str), repr(self.summary), f"the summary of `{self.name}` must be a text")
        for target in (self.builder, self.runner):
            _require(TARGET.fullmatch(target), target, "a target must look like `package.module:Class`")


@dataclass(frozen=True)
class Rewrite:
    """A named pass from graph to graph: what it requires of the graph given, what it ensures of the one returned."""

    name: str
    requires: str
    ensures: str
    apply: "Callable[[Graph], Graph]"


def _require(holds: object, got: str, expected: str) -> None:
    if not holds:
        raise fail(expected, f"got `{got}`", fix="correct the record in the plugin")
