"""Settings files: a strict YAML document read into frozen pydantic models, every mistake at once with its line."""

import re
import types
import typing
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from atinuke.core.document import Document, KeyPath, parse
from atinuke.core.errors import AtinukeError, Mistake, Place, fail, raise_all
from atinuke.core.names import close


class Section(BaseModel):
    """A group of settings: frozen; refuses unknown keys and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Model = TypeVar("Model", bound=Section)


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
        if typing.get_origin(section) is dict:
            section, known, path = typing.get_args(section)[1], [], (*path, key)
            continue
        choices = _models(section)
        if len(choices) > 1:  # this step is the tag that chose between the sections
            section = next(one for one in choices if key in typing.get_args(one.model_fields["name"].annotation))
            known = list(section.model_fields)
            continue
        known = list(choices[0].model_fields) if choices else []
        section = choices[0].model_fields[str(key)].annotation if str(key) in known else None
        path = (*path, key)
    return path, known


def _models(annotation: Any) -> list[type[Section]]:
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [model for choice in typing.get_args(annotation) for model in _models(choice)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, Section) else []


def _listed(model: type[Section]) -> str:
    return ", ".join(f"`{name}`" for name, field in model.model_fields.items() if field.is_required())
