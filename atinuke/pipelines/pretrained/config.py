"""config.json of others: what it says about a graph, and how it says it again on the way back."""

import copy
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from atinuke.core import dims
from atinuke.core.dims import UnknownName
from atinuke.core.errors import Mistake, fail, raise_all
from atinuke.core.spec import reference
from atinuke.pipelines.pretrained.family import EVERY_MODEL, Effect, Family, dotted

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"


@dataclass(frozen=True)
class Meaning:
    """What a config.json says: values of dims, the largest sizes of axes (or lowest and largest), and changes to the
    graph."""

    dims: Mapping[str, Any]
    axes: Mapping[str, tuple[int, ...]]
    effects: tuple[Effect, ...]


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        AtinukeError: it cannot be read, or is no object.
    """
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror}", where=str(file), fix="name the folder of a model") from None
    except (ValueError, RecursionError) as error:
        raise fail(f"is not JSON: {error}", where=str(file), fix="restore it from a copy") from None
    if not isinstance(found, dict):
        raise fail("is not a JSON object", where=str(file), fix="restore it from a copy")
    return found


def with_preprocessor(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A config.json with what the folder says about making pictures and sound ready, under the key `preprocessor`."""
    file = folder / PREPROCESSOR
    return {**config, "preprocessor": read_json(file)} if file.is_file() else dict(config)


def meaning(family: Family, config: Mapping[str, Any], where: Path) -> Meaning:
    """What a config.json of this family means.

    Raises:
        AtinukeError: it has keys or values that the family does not know, or lacks some; carries every mistake.
    """
    mistakes: list[Mistake] = []

    def wrong(what: str, *details: str, fix: str | None = None) -> None:
        mistakes.append(Mistake(what, str(where), details, fix))

    values = _values(family, config)
    known = _known(family)
    for key, value in values.items():
        if value and not any(fnmatchcase(key, pattern) or key.startswith(f"{pattern}.") for pattern in known):
            fix = "if it changes nothing that is computed, name it under `ignored` in a copy of the family's file"
            wrong(f"has the key `{key}`, which family `{family.name}` does not know", f"got {_shown(value)}", fix=fix)
    for key, wanted in family.requires.items():
        options = [_given(one, values) for one in (wanted if isinstance(wanted, list) else [wanted])]
        if key in values and not any(_same(values[key], option) for option in options):
            expected = " or ".join(map(_shown, options))
            wrong(f"has a `{key}` that is not supported", f"expected {expected}", f"got {_shown(values[key])}")
    effects = []
    for key, choices in family.choices.items():
        if key not in values:
            wrong(f"lacks `{key}`", f"expected one of {', '.join(choices)}")
        elif _text(values[key]) not in choices:
            wrong(
                f"has a `{key}` that is not supported",
                f"expected {' or '.join(choices)}",
                f"got {_shown(values[key])}",
            )
        else:
            effects.append(choices[_text(values[key])])
    numbers = {dotted(key): value for key, value in values.items()}

    def size(name: str, expression: str) -> Any:
        try:
            return _value(expression, numbers)
        except UnknownName as error:
            wrong(f"lacks `{error.name.replace('__', '.')}`, which the dim `{name}` follows from")
        except ValueError as error:
            wrong(f"gives no `{name}`: {error}")

    sizes = {name: size(name, expression) for name, expression in family.dims.items()}
    axes = {name: tuple(size(name, one) for one in ends) for name, ends in family.axes.items()}
    raise_all(mistakes)
    return Meaning(sizes, axes, tuple(effects))


def rewritten(family: Family, config: Mapping[str, Any], sizes: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The config.json with which a model began, with the keys that its dims have changed since, such as `vocab_size`.

    Raises:
        AtinukeError: a dim has changed that no single key says.
    """
    changed = copy.deepcopy(dict(config))
    before = meaning(family, config, where).dims
    for name, expression in family.dims.items():
        if before[name] != sizes[name] and dotted(expression).isidentifier():
            *path, last = expression.split(".")
            section = changed
            for key in path:
                section = section.setdefault(key, {})
            section[last] = sizes[name]
    after = meaning(family, changed, where).dims
    for name, value in after.items():
        if value != sizes[name]:
            raise fail(
                f"family `{family.name}` cannot say `{name}: {sizes[name]}` in config.json",
                f"it follows from `{family.dims[name]}`, which gives {value}",
                where=str(where),
            )
    return changed


def _values(family: Family, config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config.json that have values, nested ones with dots, by their new names, with defaults; and
    `num_labels`, which is not written where labels have names. Null is a value where it is one of the choices."""
    given = {family.aliases.get(key, key): value for key, value in _flat(config, "").items()}
    values = {k: v for k, v in given.items() if v is not None or _text(None) in family.choices.get(k, ())}
    if config.get("id2label"):
        values["num_labels"] = len(config["id2label"])
    for key, default in family.defaults.items():
        if key not in values and (value := _given(default, values)) is not None:
            values[key] = value
    return values


def _given(value: Any, values: Mapping[str, Any]) -> Any:
    """A plain value, or what a `${...}` in keys of config.json gives; None where one of these is missing, which is said
    where it is needed."""
    inside = reference(value) if isinstance(value, str) else None
    if inside is None:
        return value
    try:
        return _value(inside, {dotted(key): given for key, given in values.items()})
    except (UnknownName, ValueError):
        return None


def _flat(value: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) and inner else {f"{prefix}{key}": inner}
    return found


def _known(family: Family) -> set[str]:
    known = {*EVERY_MODEL, *family.ignored, *family.requires, *family.choices, *family.aliases}
    for expression in itertools.chain(family.dims.values(), *family.axes.values()):
        known |= {name.replace("__", ".") for name in dims.names(dims.parse(dotted(expression)))}
    for default in (*family.defaults.values(), *family.requires.values()):
        if isinstance(default, str) and (inside := reference(default)):
            known |= {name.replace("__", ".") for name in dims.names(dims.parse(dotted(inside)))}
    return known | family.defaults.keys()


def _value(expression: str, numbers: Mapping[str, Any]) -> Any:
    name = dotted(expression)
    if name.isidentifier():  # booleans are no numbers in expressions
        if name not in numbers:
            raise UnknownName(name)
        if not isinstance(numbers[name], int | float):
            raise ValueError(f"`{expression}` is {_shown(numbers[name])}, not a number")
        return numbers[name]
    return dims.evaluate(dims.parse(name), numbers)


def _same(value: Any, option: Any) -> bool:
    return isinstance(value, bool) is isinstance(option, bool) and bool(value == option)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
