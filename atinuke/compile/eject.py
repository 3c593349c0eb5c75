"""The source of a graph as one file that runs with torch alone: nobody is locked in.

The classes of the components are copied in from the modules they live in, with whatever else of their package they
use. Imports of other packages stay imports; annotations of shapes stay as text, which nothing evaluates.
"""

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from atinuke.compile.module import source_of
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import AtinukeError, fail

ANNOTATIONS = "jaxtyping"

USAGE = """

if __name__ == "__main__":
    import sys

    model = {name}()
    if len(sys.argv) > 1:  # the name of a model.safetensors
        from safetensors.torch import load_model

        load_model(model, sys.argv[1])
    print(model)
"""


@dataclass
class _Module:
    """A module that is copied from: its top-level definitions by name, and what its imports bring in."""

    name: str
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def text(self, name: str) -> str:
        """The text of a definition as it was written, comments and all."""
        statement = self.definitions[name]
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
        return "\n".join(self.lines[first - 1 : statement.end_lineno])


class _Gatherer:
    """Collects definitions in the order in which they must stand, each once."""

    def __init__(self) -> None:
        self.modules: dict[str, _Module] = {}
        self.names: dict[tuple[str, str], str] = {}
        self.imports: dict[str, str] = {}
        self.text: list[str] = []
        self.taken: set[str] = set()
        self.generated: set[str] = set()

    def module(self, name: str) -> _Module:
        if name not in self.modules:
            self.modules[name] = _read(name)
        return self.modules[name]

    def definition(self, module: str, name: str) -> None:
        """Adds a definition and, before it, everything of the same package that it uses."""
        if (module, name) in self.names:
            return
        source = self.module(module)
        if name not in source.definitions:
            raise fail(
                f"`{name}` is not defined at the top of {module}, so it cannot be ejected",
                fix="define it there by a class, def or assignment",
            )
        if name in self.generated:
            raise _clash(name, f"a definition in {module}")
        if name in self.taken:
            raise fail(f"two things are called `{name}`, one of them in {module}", fix="rename one of them")
        self.names[(module, name)] = name
        self.taken.add(name)
        statement = source.definitions[name]
        for used in _names(statement):
            if used in source.definitions and used != name:
                self.definition(module, used)
            elif used in source.imports:
                self.imported(module, used, *source.imports[used])
        self.text.append(source.text(name))

    def imported(self, module: str, used: str, origin: str, attribute: str | None) -> None:
        package = module.partition(".")[0]
        if origin.partition(".")[0] == ANNOTATIONS:
            return
        if origin.partition(".")[0] == package and attribute is not None and _is_module(origin):
            if used != attribute:
                raise fail(
                    f"{module} imports `{attribute}` as `{used}`", fix="import it under its own name to eject it"
                )
            self.definition(origin, attribute)
            return
        line = f"import {origin}" if attribute is None else f"from {origin} import {attribute}"
        name = origin if attribute is None else attribute
        line += f" as {used}" if used != name else ""
        if self.imports.setdefault(used, line) != line:
            raise fail(f"`{used}` means two things: {self.imports[used]!r} and {line!r}", fix="rename one of them")
        if used in self.generated:
            raise _clash(used, f"an import of {module}")


def eject(checked: CheckedGraph) -> str:
    """The text of a stand-alone Python file that defines the graph's class; state-dict names stay the same.

    Raises:
        AtinukeError: the source of a component cannot be found, or two definitions share a name.
    """
    source = source_of(checked)
    gatherer = _Gatherer()
    gatherer.generated.update(_class_names(source.text))
    for name, cls in source.imports.items():
        if name != cls.__name__:
            raise _clash(cls.__name__, f"the component {cls.__module__}:{cls.__name__}")
        gatherer.definition(cls.__module__, cls.__name__)
    for line in ("import torch", "from torch import Tensor, nn", "from typing import NamedTuple"):
        gatherer.imports.setdefault(line.split()[-1], line)
    for name in ("Tensor", "nn"):
        gatherer.imports[name] = f"from torch import {name}"
    head = f'"""Graph `{checked.graph.name}`, ejected from Atinuke: runs with torch alone."""'
    imports = sorted(set(gatherer.imports.values()), key=lambda line: (line.startswith("from"), line))
    classes = source.text[source.text.index("\nclass ") :].strip("\n")
    parts = [head, "", "from __future__ import annotations", "", *imports, "", "", ""]
    body = "\n\n\n".join([*gatherer.text, classes])
    return "\n".join(parts) + body + "\n" + USAGE.format(name=source.name)


def _clash(name: str, other: str) -> AtinukeError:
    """The class that a graph or block becomes has the name of something that it needs."""
    fix = "rename the graph or block that becomes this class"
    return fail(f"class `{name}` of the ejected file clashes with {other}", fix=fix)


def _read(name: str) -> _Module:
    spec = importlib.util.find_spec(name)
    origin = spec.origin if spec else None
    if origin is None or not origin.endswith(".py"):
        loaded = sys.modules.get(name)
        origin = inspect.getsourcefile(loaded) if loaded else None
    if origin is None:
        raise fail(f"the source of {name} cannot be found", fix="install it from source to eject graphs that use it")
    text = Path(origin).read_text(encoding="utf-8")
    module = _Module(name, lines=text.splitlines())
    for statement in ast.parse(text).body:
        match statement:
            case ast.Import():
                for alias in statement.names:
                    module.imports[alias.asname or alias.name.partition(".")[0]] = (alias.name, None)
            case ast.ImportFrom(module=origin_name) if origin_name:
                for alias in statement.names:
                    module.imports[alias.asname or alias.name] = (origin_name, alias.name)
            case ast.ClassDef() | ast.FunctionDef():
                module.definitions[statement.name] = statement
            case ast.Assign() | ast.AnnAssign():
                for target in _targets(statement):
                    module.definitions[target] = statement
    return module


def _targets(statement: ast.Assign | ast.AnnAssign) -> Iterable[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _names(statement: ast.stmt) -> list[str]:
    """The names that a definition uses at run time: annotations of arguments and returns are only text."""
    found: dict[str, None] = {}
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            found[node.id] = None
    return list(found)


def _class_names(text: str) -> set[str]:
    return {node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}


def _is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
