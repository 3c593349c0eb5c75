"""Settings files: a strict YAML document read into frozen pydantic models, every mistake at once with its line."""

import re
import types
import typing
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError, core_schema

from atinuke.core.component import Choice, import_target
from atinuke.core.document import Document, KeyPath, parse
from atinuke.core.errors import AtinukeError, Mistake, Place, fail, raise_all
from atinuke.core.names import close


class Section(BaseModel):
    """A group of settings: frozen; refuses unknown keys and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Model = TypeVar("Model", bound=Section)


class Chosen(Section):
    """A section that a plugin may provide: its key `name` finds the class whose settings the other keys are.

    A direct subclass is a kind of sections (objectives, sources), and `find` knows the records of that kind. Where it
    stands as a field, any class of the kind that is registered may stand.
    """

    name: str

    @classmethod
    def find(cls, name: str) -> Choice:
        """The record of a name; raises AtinukeError."""
        raise NotImplementedError

    @classmethod
    def named(cls, name: str) -> type[Self]:
        """The class that a name stands for.

        Raises:
            AtinukeError: there is none, or its plugin is missing, broken, or names another kind of thing.
        """
        record = cls.find(name)
        found = import_target(record.target)
        if not (isinstance(found, type) and issubclass(found, cls)):
            raise fail(f"`{record.target}` is no subclass of {cls.__module__}.{cls.__name__}", fix="repair the plugin")
        return found

    @classmethod
    def is_kind(cls) -> bool:
        """Whether this is a kind of sections, and not one of them."""
        return Chosen in cls.__bases__

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        if cls.__bases__ == (Section,) or not cls.is_kind():  # the first is this class, which has no name yet
            return handler(source)
        dumped = core_schema.plain_serializer_function_ser_schema(
            lambda section, info: section.model_dump(mode=info.mode), info_arg=True
        )
        return core_schema.no_info_plain_validator_function(cls._choose, serialization=dumped)

    @classmethod
    def _choose(cls, value: Any) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise PydanticCustomError("no_section", "Input should have a key `name` and settings")
        if not isinstance(value.get("name"), str):
            raise PydanticCustomError("union_tag_not_found", "Input should have a key `name`")
        try:
            found = cls.named(value["name"])
        except AtinukeError as error:
            mistake = error.mistakes[0]
            told = {"what": mistake.what, "details": mistake.details, "fix": mistake.fix}
            raise PydanticCustomError("union_tag_unknown", "{what}", told) from None
        return found.model_validate(value)


def read(model: type[Model], document: Document, overrides: Sequence[str] = ()) -> Model:
    """The document as a `model`, after `key.path=value` overrides.

    Where a field is a choice between sections, the key `name` says which (pydantic's discriminator).

    Raises:
        AtinukeError: with every mistake in the document; or, where its YAML is sound, in the settings and overrides.
    """
    raise_all(document.mistakes)
    if not isinstance(document.data, dict):
        raise fail("is not a settings file", f"expected keys such as {_listed(model)}", where=document.place(()))
    mistakes: list[Mistake] = []
    given: list[KeyPath] = []
    for override in overrides:
        try:
            given.append(_override(document, override))
        except AtinukeError as error:
            mistakes.extend(error.mistakes)
    try:
        settings = model.model_validate(document.data)
    except ValidationError as error:
        found = [_mistake(model, detail, document, given) for detail in error.errors(include_url=False)]
        mistakes += sorted(found, key=lambda mistake: getattr(mistake.where, "line", 0))
    raise_all(mistakes)
    return settings


def _override(document: Document, override: str) -> KeyPath:
    """Puts `a.b=value` into the document; returns the path it set."""
    name, equals, text = override.partition("=")
    path = tuple(name.split("."))
    if not equals or not all(path):
        raise fail(f"`{override}` is not an override", where="--set", fix="write `key=value` or `section.key=value`")
    value = parse(text)
    raise_all(replace(mistake, where=f"--set {name}") for mistake in value.mistakes)
    section = document.data
    for key in path[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise fail(f"`{key}` has no keys of its own", where=f"--set {name}", fix="set the whole value")
    section[path[-1]] = value.data
    return path


def _mistake(model: type[Section], detail: ErrorDetails, document: Document, given: list[KeyPath]) -> Mistake:
    """What pydantic found, with its line or with the override that brought it in."""
    kind, context = detail["type"], detail.get("ctx", {})
    path, known = _follow(model, detail["loc"], document.data)
    if kind.startswith("union_tag"):
        path = (*path, "name")
    override = next((over for over in given if path and over[: len(path)] == path), None)
    where: Place | str = f"--set {'.'.join(map(str, override))}" if override else document.place(path)
    name = ".".join(map(str, path))
    match kind:
        case "missing" | "union_tag_not_found":
            return Mistake(f"`{name}` is missing", where)
        case "extra_forbidden":
            return Mistake(f"unknown key `{name}`", where, fix=close(str(path[-1]), known))
        case "union_tag_unknown":
            return Mistake(f"`{name}`: {context['what']}", where, context["details"], fix=context["fix"])
        case "union_tag_invalid":
            return Mistake(f"`{name}` must be one of {context['expected_tags']}", where, (f"got `{context['tag']}`",))
        case "value_error":
            return Mistake(f"`{name}` {context['error']}" if name else str(context["error"]), where)
    what = re.sub(r"^\w+ should", "must", detail["msg"])
    return Mistake(f"`{name}` {what}", where, (f"got `{detail['input']}`",))


def _follow(model: type[Section], loc: tuple[str | int, ...], value: Any) -> tuple[KeyPath, list[str]]:
    """Pydantic's location without the tags it puts between, and the keys that are known where it ends."""
    path: KeyPath = ()
    section: Any = model
    known = list(model.model_fields)
    for key in loc:
        if isinstance(key, int):
            section, path = typing.get_args(section)[0], (*path, key)
            value = value[key]
            known = []
            continue
        if typing.get_origin(section) is dict:
            section, known, path = typing.get_args(section)[1], [], (*path, key)
            value = value.get(key) if isinstance(value, dict) else None
            continue
        choices = [_chosen(choice, value) for choice in _models(section)]
        if len(choices) > 1:  # this step is the tag that chose between the sections
            section = next(one for one in choices if key in typing.get_args(one.model_fields["name"].annotation))
            known = list(section.model_fields)
            continue
        known = list(choices[0].model_fields) if choices else []
        section = choices[0].model_fields[str(key)].annotation if str(key) in known else None
        value = value.get(key) if isinstance(value, dict) else None
        path = (*path, key)
    return path, known


def _chosen(section: type[Section], value: Any) -> type[Section]:
    """The class that stands where a kind of sections may; the value is known to name one."""
    if issubclass(section, Chosen) and section.is_kind() and isinstance(value, dict) and "name" in value:
        try:
            return section.named(value["name"])
        except AtinukeError:
            return section
    return section


def _models(annotation: Any) -> list[type[Section]]:
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [model for choice in typing.get_args(annotation) for model in _models(choice)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, Section) else []


def _listed(model: type[Section]) -> str:
    return ", ".join(f"`{name}`" for name, field in model.model_fields.items() if field.is_required())
