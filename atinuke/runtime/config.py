"""The parts of config.json, written and read: nothing in it is believed that could not be so."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from atinuke.core.errors import fail
from atinuke.runtime.interface import Axes, Interface, Port, axes_of
from atinuke.runtime.strict import WORD, Value

PROGRAMS = (("forward",), ("prefill", "decode"), ("prepare", "prefill", "decode"))
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
BUILD = re.compile(r"([a-z][a-z0-9_-]{0,40}:)?[a-z][a-z0-9_]{0,40}/[a-z][a-z0-9-]{0,40}")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}")

_PORT = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,199}")
_RANK = 16


def plain(interface: Interface) -> dict[str, Any]:
    """An interface as JSON holds it."""
    ports = {
        way: [{"name": port.name, "dtype": port.dtype, "shape": list(port.shape)} for port in getattr(interface, way)]
        for way in ("inputs", "outputs")
    }
    return {**ports, "memory": dict(interface.memory)}


def read_axes(value: Value) -> Axes:
    """The axes: `{"batch": [1, 8]}`."""
    found: dict[str, tuple[int, int]] = {}
    for name, axis in value.mapping(WORD).items():
        low, high = axis.items(2, 2)
        found[name] = (low.whole(), high.whole(low.whole()))
    return found


def read_programs(value: Value, axes: Axes) -> dict[str, Interface]:
    """The programs, in the order in which they are called."""
    told = value.mapping(WORD)
    names = next((names for names in PROGRAMS if set(names) == told.keys()), None)
    if names is None:
        raise value.wrong(f"the programs {', or '.join(' and '.join(names) for names in PROGRAMS)}")
    found = {name: _interface(told[name], axes) for name in names}
    if "prefill" in found:
        _go_together(found, axes, told)
    return found


def read_build(value: Value) -> str:
    """A target and precision: `onnx/fp32`."""
    return value.text(BUILD, "a target and a precision, such as onnx/fp32")


def read_fields(value: Value, programs: Mapping[str, Interface]) -> dict[str, dict[str, Any]]:
    """How inputs are read from what people have: as `atinuke.runtime.fields` takes it."""
    inputs = {port.name for interface in programs.values() for port in interface.given}
    found: dict[str, dict[str, Any]] = {}
    for name, field in value.mapping().items():
        if name not in inputs:
            raise field.wrong("of an input that a program has")
        kind = field.mapping().get("name", Value(None, field.file, f"{field.path}.name")).choice(_FIELDS)
        known = {key: read for key, read in _FIELDS[kind].items() if key not in _LATER or key in field.mapping()}
        told = field.record("name", *known)
        found[name] = {"name": kind, **{key: read(told[key]) for key, read in known.items()}}
    return found


def read_classes(value: Value, programs: Mapping[str, Interface]) -> dict[str, tuple[str, ...]]:
    """The names of an output's last axis."""
    outputs = {port.name: port for interface in programs.values() for port in interface.outputs}
    found: dict[str, tuple[str, ...]] = {}
    for name, told in value.mapping().items():
        names = tuple(one.text() for one in told.items(1))
        if name not in outputs or not outputs[name].shape:
            raise told.wrong("of an output that has axes")
        last = outputs[name].shape[-1]
        if len(names) != last:
            raise told.wrong(f"{last} names, as many as the last axis of `{name}` is long")
        found[name] = names
    return found


def _interface(value: Value, axes: Axes) -> Interface:
    told = value.record("inputs", "outputs", "memory")
    inputs, outputs = (_ports(told[way], axes) for way in ("inputs", "outputs"))
    bare = {size for port in inputs.values() for size in port.shape}
    for port in inputs.values():
        for size in port.shape:
            if isinstance(size, str) and not axes_of(size) <= bare:
                raise fail(f"{value.path}: nothing tells the size {size} of `{port.name}`", where=value.file)
    memory: dict[str, str] = {}
    for name, one in told["memory"].mapping().items():
        output = one.choice(outputs)
        if name not in inputs or output in memory.values():
            raise one.wrong("of an input, and each of another output")
        old, new = inputs[name], outputs[output]
        if (old.dtype, old.shape) != (new.dtype, new.shape) or not {*old.shape} <= {*axes, *_numbers(old)}:
            raise one.wrong(f"an output just like `{old}`, with whole axes")
        memory[name] = output
    return Interface(tuple(inputs.values()), tuple(outputs.values()), memory)


def _ports(value: Value, axes: Axes) -> dict[str, Port]:
    found: dict[str, Port] = {}
    for one in value.items(1):
        told = one.record("name", "dtype", "shape")
        name = told["name"].text(_PORT, "a port's name")
        if name in found:
            raise told["name"].wrong("another name, which no other port has")
        shape = tuple(_size(size, axes) for size in told["shape"].items(0, _RANK))
        found[name] = Port(name, told["dtype"].choice(DTYPES), shape)
    return found


def _size(value: Value, axes: Axes) -> int | str:
    if not isinstance(value.data, str):
        return value.whole(0)
    try:
        known = axes_of(value.text()) <= axes.keys()
    except ValueError:
        known = False
    if not known:
        raise value.wrong("a number, an axis or arithmetic of axes")
    return value.text()


def _numbers(port: Port) -> list[int]:
    return [size for size in port.shape if isinstance(size, int)]


def _go_together(programs: Mapping[str, Interface], axes: Axes, told: Mapping[str, Value]) -> None:
    """A text is written by calls that fit together: what one leaves, the next takes."""
    prefill, decode = programs["prefill"], programs["decode"]
    text, *others = prefill.given[:3]
    place, last = Port("position", "int64", ("batch",)), Port("last", "int64", ("batch",))
    if not {"batch", "capacity"} <= axes.keys() or others != [place, last] or not _is_text(text, axes):
        raise told["prefill"].wrong(f"a program of a text [batch, length], `{place}` and `{last}`, with a `capacity`")
    if decode.given[:2] != (Port(text.name, text.dtype, ("batch", 1)), place):
        raise told["decode"].wrong(f"a program of `{text.name}`, one token a row, and of `{place}`")
    known, read = ({port.name: port for port in program.inputs} for program in (prefill, decode))
    if dict(decode.memory) != dict(prefill.memory) or any(known[name] != read[name] for name in decode.memory):
        raise told["decode"].wrong("a program with the memory of prefill")
    for port in programs["prepare"].outputs if "prepare" in programs else ():
        if known.get(port.name) != port or read.get(port.name) != port:
            raise told["decode"].wrong(f"a program that reads `{port}`, like prefill, since prepare gives it")


def _is_text(port: Port, axes: Axes) -> bool:
    return len(port.shape) == 2 and port.shape[0] == "batch" and port.shape[1] in axes and "int" in port.dtype


def _maybe(read: Callable[[Value], Any]) -> Callable[[Value], Any]:
    return lambda value: value.maybe(read)


def _name(value: Value) -> str:
    return value.text(_PORT, "an input's name")


def _names(value: Value) -> list[str]:
    return [one.text() for one in value.items(2)]


def _template(value: Value) -> dict[str, Any]:
    """What stands around one text, or around and between two, and the segment of each."""

    def numbers(value: Value) -> list[int]:
        return [one.whole(0) for one in value.items(0)]

    told = value.record("around", "texts")
    texts = told["texts"].items(1, 2)
    around = [
        [numbers(one) for one in part.items(2, 2)] for part in told["around"].items(len(texts) + 1, len(texts) + 1)
    ]
    for part, (ids, segments) in zip(told["around"].items(), around, strict=True):
        if len(ids) != len(segments):
            raise part.wrong("tokens and as many segments")
    return {"around": around, "texts": [one.whole(0) for one in texts]}


_LATER = ("template",)  # what older bundles lack
_OPTIONAL = {"optional": Value.flag}
_MASKED = {"multiple": Value.whole, "mask": _maybe(_name), **_OPTIONAL}
_FIELDS: dict[str, dict[str, Callable[[Value], Any]]] = {
    "audio": {"rate": Value.whole, "longest": Value.positive, **_MASKED},
    "image": {
        "size": lambda value: [one.whole() for one in value.items(2, 2)],
        "channels": Value.whole,
        "mask": _maybe(_name),
        **_OPTIONAL,
    },
    "text": {
        "pair": Value.flag,
        "segments": _maybe(_name),
        "length": Value.whole,
        "cut": Value.flag,
        "end_of_text": _maybe(Value.text),
        "template": _maybe(_template),
        **_MASKED,
    },
    "class": {"classes": _maybe(_names), **_OPTIONAL},
    "classes": {"classes": _maybe(_names), **_OPTIONAL},
    "number": {},
}
