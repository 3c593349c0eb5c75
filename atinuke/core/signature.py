"""A component's settings and ports, read from its constructor and its annotated `forward`.

The annotations are jaxtyping's: `Float[Tensor, "batch sequence {self.d_model}"]`. There is no second schema.
"""

import ast
import inspect
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Union

import pydantic

from atinuke.core import dims
from atinuke.core.errors import AtinukeError, Mistake, fail

Kind = Literal["float", "int", "bool"]

SETTING = re.compile(r"\{self\.([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class Dim:
    """One axis of a port: an expression in names and settings (settings are written `self_d_model` in the tree)."""

    text: str
    tree: ast.expr = field(compare=False)
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str | None:
        """The name, where the axis is nothing but a name."""
        return self.tree.id if isinstance(self.tree, ast.Name) and not self.settings else None


@dataclass(frozen=True)
class Shape:
    """The axes of a port; `lead` names the `*lead` axes that may stand for any number, at position `at`."""

    dims: tuple[Dim, ...]
    lead: str | None = None
    at: int = 0

    def __str__(self) -> str:
        parts = [dim.text for dim in self.dims]
        if self.lead:
            parts.insert(self.at, f"*{self.lead}")
        return " ".join(parts)


@dataclass(frozen=True)
class Port:
    """One input or output. `many` takes any number of wires of one shape."""

    name: str
    kinds: frozenset[str]
    shape: Shape
    optional: bool = False
    many: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {describe(self.kinds)}[{self.shape}]" + ("?" if self.optional else "")


@dataclass(frozen=True)
class Setting:
    """A constructor argument: its annotation, and its default (`inspect.Parameter.empty` when it is required)."""

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class Signature:
    """What a component takes and gives. `outputs` has one port per tensor; the first is the one a bare wire means.

    `training_only` says that it never leaves training: a loss that ONNX has no words for. `prepares` are the ports that
    prepare() takes in place of step(), and `prepared` the number of tensors that it gives.
    """

    settings: Mapping[str, Setting]
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    several: bool
    limits: Mapping[str, str]
    steps: bool
    remembers: bool
    prepares: tuple[str, ...]
    prepared: int
    training_only: bool

    def validate(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """All settings with their defaults, and what is wrong with those given (types; missing ones)."""
        values: dict[str, Any] = {}
        wrong: list[str] = []
        for name, setting in self.settings.items():
            if name in settings:
                try:
                    values[name] = _adapter(setting.annotation).validate_python(settings[name], strict=True)
                except pydantic.ValidationError as error:
                    message = error.errors(include_url=False)[0]["msg"]
                    wrong.append(f"setting `{name}`: {_lower(message)}, but is {settings[name]!r}")
            elif setting.required:
                wrong.append(f"setting `{name}` is missing")
            else:
                values[name] = setting.default
        return values, wrong


def _plain(annotation: Any) -> bool:
    """Whether an annotation is of plain values."""
    try:
        _adapter(annotation)
    except pydantic.PydanticSchemaGenerationError:
        return False
    return True


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


@lru_cache(maxsize=512)
def _adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(annotation)


def setting_schema(setting: Setting) -> dict[str, Any]:
    """JSON Schema of a setting's value."""
    return _adapter(setting.annotation).json_schema()


@lru_cache(maxsize=1024)
def read_signature(cls: type) -> Signature:
    """The signature of a component's class.

    Raises:
        AtinukeError: an argument is not annotated, an annotation is not jaxtyping's, or a size cannot be read.
    """
    reader = _Reader(cls)
    signature = reader.read()
    if reader.mistakes:
        raise AtinukeError(*reader.mistakes)
    return signature


class _Reader:
    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.where = f"{cls.__module__}:{cls.__qualname__}"
        self.mistakes: list[Mistake] = []

    def wrong(self, what: str, *details: str, fix: str | None = None) -> None:
        self.mistakes.append(Mistake(what, self.where, details, fix))

    def read(self) -> Signature:
        forward = getattr(self.cls, "forward", None)
        if not callable(forward):
            raise fail(
                "has no forward()", where=self.where, fix="a component is an nn.Module with an annotated forward"
            )
        settings = self.settings()
        inputs: dict[str, Port] = {}
        hints = self.hints(forward)
        for parameter in list(inspect.signature(forward).parameters.values())[1:]:
            port = self.port(parameter.name, hints.get(parameter.name), parameter, settings)
            if port:
                inputs[port.name] = port
        outputs, several = self.outputs(hints.get("return"), settings)
        limits = getattr(self.cls, "limits", {})
        if not isinstance(limits, Mapping) or not all(
            isinstance(text, str) for pair in limits.items() for text in pair
        ):
            self.wrong("limits must map names of axes to names of settings", f"got {limits!r}")
            limits = {}
        for name in set(limits.values()) - settings.keys():
            self.wrong(f"limits names `{name}`, which is not a setting")
        training_only = getattr(self.cls, "training_only", False) is True
        if training_only and any(port.shape.dims or port.shape.lead for port in outputs.values()):
            self.wrong("training_only is for losses, whose outputs are single numbers")
        prepares, prepared = self.prepare(inputs)
        return Signature(
            settings,
            inputs,
            outputs,
            several,
            dict(limits),
            steps=callable(getattr(self.cls, "step", None)),
            remembers=callable(getattr(self.cls, "state", None)),
            prepares=prepares,
            prepared=prepared,
            training_only=training_only,
        )

    def prepare(self, inputs: Mapping[str, Port]) -> tuple[tuple[str, ...], int]:
        """The ports that prepare() takes, and the number of tensors that it gives; none where there is no prepare()."""
        method = getattr(self.cls, "prepare", None)
        if not callable(method):
            return (), 0
        ports = tuple(inspect.signature(method).parameters)[1:]
        for name in ports:
            if name not in inputs or inputs[name].many:
                self.wrong(f"prepare() takes `{name}`, which is not a port of forward() with one wire")
        given = self.hints(method).get("return")
        tensors = typing.get_args(given)
        if typing.get_origin(given) is not tuple or not tensors or Ellipsis in tensors:
            self.wrong(
                "prepare() does not say how many tensors it gives",
                f"got {given!r}",
                fix="annotate what it returns: tuple[Tensor, Tensor]",
            )
        return ports, len(tensors)

    def hints(self, function: Any) -> dict[str, Any]:
        try:
            return typing.get_type_hints(function)
        except Exception as error:
            self.wrong(f"annotations of {function.__name__}() cannot be read", f"{type(error).__name__}: {error}")
            return {}

    def settings(self) -> dict[str, Setting]:
        init = self.cls.__init__  # type: ignore[misc]
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        parameters = list(inspect.signature(init).parameters.values())[1:]
        if all(parameter.kind in variadic for parameter in parameters):
            return {}  # inherited from nn.Module: there is nothing to set
        hints = self.hints(init)
        found: dict[str, Setting] = {}
        for parameter in parameters:
            if parameter.kind in variadic:
                self.wrong(f"constructor takes `{parameter}`", fix="name every setting")
            elif parameter.name not in hints:
                self.wrong(f"setting `{parameter.name}` has no annotation", fix="annotate it: int, float, str, ...")
            elif not _plain(hints[parameter.name]):
                fix = "settings are plain values: int, float, bool, str, None, Literal, or lists of them"
                self.wrong(f"setting `{parameter.name}` is a {hints[parameter.name]!r}", fix=fix)
            else:
                found[parameter.name] = Setting(parameter.name, hints[parameter.name], parameter.default)
        return found

    def port(
        self, name: str, hint: Any, parameter: inspect.Parameter | None, settings: Mapping[str, Setting]
    ) -> Port | None:
        optional = False
        if typing.get_origin(hint) in (Union, types.UnionType):
            rest = [choice for choice in typing.get_args(hint) if choice is not type(None)]
            if len(rest) == 1:
                hint, optional = rest[0], True
        if not hasattr(hint, "dim_str") or not hasattr(hint, "dtypes"):
            self.wrong(
                f"`{name}` of forward() does not say its shape",
                f"got {hint!r}" if hint is not None else "it has no annotation",
                fix='annotate it in jaxtyping notation, e.g. Float[Tensor, "batch sequence {self.d_model}"]',
            )
            return None
        if parameter is not None and parameter.kind is parameter.VAR_KEYWORD:
            self.wrong(f"forward() takes `**{name}`", fix="name every port, so that a misspelt one is an error")
            return None
        if parameter is not None and optional and parameter.default is not None:
            self.wrong(f"optional port `{name}` must have the default None")
        shape = self.shape(name, hint.dim_str, settings)
        if shape is None:
            return None
        many = parameter is not None and parameter.kind is parameter.VAR_POSITIONAL
        return Port(name, _kinds(hint.dtypes), shape, optional, many)

    def outputs(self, hint: Any, settings: Mapping[str, Setting]) -> tuple[dict[str, Port], bool]:
        if inspect.isclass(hint) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
            fields = self.hints_of_fields(hint)
            ports = [self.port(name, fields.get(name), None, settings) for name in hint._fields]
            return {port.name: port for port in ports if port}, True
        port = self.port("return", hint, None, settings)
        return ({"return": port} if port else {}), False

    def hints_of_fields(self, hint: Any) -> dict[str, Any]:
        try:
            return typing.get_type_hints(hint)
        except Exception as error:
            self.wrong(f"fields of {hint.__name__} cannot be read", f"{type(error).__name__}: {error}")
            return {}

    def shape(self, port: str, text: str, settings: Mapping[str, Setting]) -> Shape | None:
        lead: str | None = None
        at = 0
        found: list[Dim] = []
        for position, part in enumerate(text.split()):
            if part.startswith("*") and part[1:].isidentifier():
                if lead is not None:
                    self.wrong(f"`{port}` has two variadic axes", f"in {text!r}")
                    return None
                lead, at = part[1:], position
                continue
            used = tuple(SETTING.findall(part))
            for name in used:
                if name not in settings:
                    self.wrong(f"`{port}` uses {{self.{name}}}, which is not a setting", f"in {text!r}")
                    return None
            try:
                tree = dims.parse(SETTING.sub(r"self_\1", part))
            except ValueError as error:
                self.wrong(f"`{port}` has a size that cannot be read", str(error), f"in {text!r}")
                return None
            found.append(Dim(SETTING.sub(r"\1", part), tree, used))
        return Shape(tuple(found), lead, at)


def _kinds(dtypes: typing.Iterable[str]) -> frozenset[str]:
    """The graph language's dtypes that a jaxtyping dtype covers: `float` (the model's own) or exact names."""
    names = set(dtypes)
    if {"float16", "bfloat16", "float32", "float64"} <= names:
        names = {name for name in names if not name.startswith(("float", "bfloat"))} | FLOATS
    return frozenset(name for name in names if name in DTYPES)


FLOATS = frozenset({"float", "float16", "bfloat16", "float32", "float64"})
INTS = frozenset({"int8", "int16", "int32", "int64", "uint8"})
DTYPES = FLOATS | INTS | {"bool"}


def describe(kinds: frozenset[str]) -> str:
    """A set of dtypes as people say it."""
    if len(kinds) == 1:
        return next(iter(kinds))
    words = [word for word, group in (("float", FLOATS), ("int", INTS), ("bool", {"bool"})) if kinds & group]
    return " or ".join(words)
