"""Reads graph files: YAML to `Graph`, with line numbers.

Everything that can be wrong with the writing is collected here; what can be wrong with the meaning (names, sizes,
dtypes) is found by `atinuke.core.check`.
"""

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from atinuke.core import dims
from atinuke.core.document import Document, KeyPath, parse, read_text
from atinuke.core.errors import Mistake, Place, raise_all
from atinuke.core.graph import BROKEN, Block, Graph, Input, Node, Range, Wire, frozen
from atinuke.core.lora import KEYS as LORA_KEYS
from atinuke.core.lora import frozen_lora
from atinuke.core.names import NAME, RESERVED, close
from atinuke.core.signature import DTYPES

VERSION = 1

TOP_KEYS = ("atinuke", "name", "dims", "axes", "slots", "inputs", "blocks", "nodes", "outputs")
BLOCK_KEYS = ("inputs", "nodes", "outputs")
NODE_KEYS = ("use", "in", "with", "repeat", "tie", "lora")

INPUT = re.compile(r"\s*(\w+)\s*\[(.*)\]\s*(\?)?\s*")
RANGE = re.compile(r"([0-9]{1,15})\.\.([0-9]{1,15})")
MAP = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
WIRE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)?")


def load_text(text: str, file: str = "<text>") -> tuple[Graph, list[Mistake]]:
    """The graph as far as it can be read, and every mistake in the writing. Never raises.

    What cannot be read is left in the graph as broken, so that the checker says nothing more about it.
    """
    document = parse(text, file)
    reader = _Reader(document)
    graph = reader.graph()
    return graph, document.mistakes


def loads(text: str, file: str = "<text>") -> Graph:
    """The graph that a YAML text describes.

    Raises:
        AtinukeError: with every mistake in the writing.
    """
    graph, mistakes = load_text(text, file)
    raise_all(mistakes)
    return graph


def load(path: Path) -> Graph:
    """The graph in a YAML file.

    Raises:
        AtinukeError: the file cannot be read, or every mistake in the writing.
    """
    return loads(read_text(path), str(path))


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.parts: dict[KeyPath, list[str | int]] = {}
        for path in document.places:
            if path:
                self.parts.setdefault(path[:-1], []).append(path[-1])

    def wrong(self, path: KeyPath, what: str, *details: str, fix: str | None = None) -> None:
        self.document.mistakes.append(Mistake(what, self.document.place(path), details, fix))

    def graph(self) -> Graph:
        data = self.document.data
        readable = isinstance(data, dict)
        if data is None and self.document.mistakes:
            data = {}  # the YAML itself is broken, and that has been said
        elif not isinstance(data, dict):
            self.wrong((), "a graph file must be a mapping", f"got {_kind(data)}", fix="begin with `atinuke: 1`")
            data = {}
        else:
            self.keys((), data, TOP_KEYS)
            version = data.get("atinuke")
            if type(version) is not int or version != VERSION:
                details = (f"got {version!r}", f"this Atinuke reads {VERSION}")
                self.wrong(("atinuke",), "the format version is not known", *details, fix="update Atinuke")
        name = data.get("name", "graph")
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][\w.-]*", name):
            self.wrong(("name",), "the name must be a word of letters, digits, `_`, `-` and `.`", f"got {name!r}")
            name = "graph"
        return Graph(
            name=name,
            dims=frozen(self.dims(data)),
            axes=frozen(self.axes(data)),
            inputs=frozen(self.inputs((), data)),
            nodes=frozen(self.nodes((), data)),
            outputs=frozen(self.outputs((), data, unnamed=False) if readable else {"": Wire("")}),
            blocks=frozen(self.blocks(data)),
            slots=frozen(self.slots(data)),
            where=self.document.place(()),
            places=self.places((), ("dims", "slots", "outputs")),
        )

    def keys(self, path: KeyPath, data: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in data:
            if key not in known:
                self.wrong((*path, key), f"unknown key `{key}`", fix=close(key, known))

    def mapping(self, path: KeyPath, value: Any, what: str) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(path, f"{what} must be a mapping", f"got {_kind(value)}")
            return {}
        return value

    def name(self, path: KeyPath, name: str) -> None:
        if not NAME.fullmatch(name):
            self.wrong(path, f"`{name}` is not a name", fix="use letters, digits and `_`, beginning with a letter")
        elif name in RESERVED or keyword.iskeyword(name):
            self.wrong(path, f"`{name}` is reserved", fix="choose another name")

    def dims(self, data: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in self.mapping(("dims",), data.get("dims"), "dims").items():
            path: KeyPath = ("dims", name)
            self.name(path, name)
            found[name] = BROKEN
            if not isinstance(value, int | float | bool | str):
                self.wrong(path, f"dim `{name}` must be a number or an expression", f"got {_kind(value)}")
            elif isinstance(value, str) and (error := _expression_error(value)):
                self.wrong(path, f"dim `{name}` cannot be read", error)
            else:
                found[name] = value
        return found

    def axes(self, data: Mapping[str, Any]) -> dict[str, Range]:
        found: dict[str, Range] = {}
        known = self.document.data.get("dims") if data else None
        for name, value in self.mapping(("axes",), data.get("axes"), "axes").items():
            path: KeyPath = ("axes", name)
            self.name(path, name)
            found[name] = Range(1, 1)
            match = RANGE.fullmatch(value) if isinstance(value, str) else None
            low, high = map(int, match.groups()) if match else (value, value)
            if isinstance(known, dict) and name in known:
                self.wrong(path, f"`{name}` is both a dim and an axis", fix="rename one of them")
            elif type(low) is not int:
                self.wrong(path, f"axis `{name}` must be a range such as 1..64", f"got {value!r}")
            elif not 1 <= low <= high:
                fix = "write low..high with 1 <= low <= high"
                self.wrong(path, f"axis `{name}` has an empty range", f"got {value}", fix=fix)
            else:
                found[name] = Range(low, high)
        return found

    def inputs(self, path: KeyPath, data: Mapping[str, Any]) -> dict[str, Input]:
        found: dict[str, Input] = {}
        for name, value in self.mapping((*path, "inputs"), data.get("inputs"), "inputs").items():
            here = (*path, "inputs", name)
            self.name(here, name)
            found[name] = self.input(here, name, value)
        return found

    def slots(self, data: Mapping[str, Any]) -> dict[str, Mapping[str, Input]]:
        found: dict[str, Mapping[str, Input]] = {}
        for name, value in self.mapping(("slots",), data.get("slots"), "slots").items():
            path: KeyPath = ("slots", name)
            if isinstance(value, str):
                found[name] = frozen({"": self.input(path, name, value, what="slot")})
                continue
            given = self.mapping(path, value, f"slot `{name}`")
            if not given:
                self.wrong(
                    path, f"slot `{name}` says nothing", fix="write what its node must give: float[batch, d_model]"
                )
            found[name] = frozen(
                {output: self.input((*path, output), output, text, what="output") for output, text in given.items()}
            )
        return found

    def input(self, path: KeyPath, name: str, value: Any, what: str = "input") -> Input:
        broken = Input("", (), where=self.document.place(path))
        match = INPUT.fullmatch(value) if isinstance(value, str) else None
        if not match:
            self.wrong(path, f"{what} `{name}` must look like int64[batch, sequence]", f"got {value!r}")
            return broken
        dtype, shape, optional = match.groups()
        if dtype not in DTYPES:
            self.wrong(path, f"{what} `{name}` has the unknown dtype `{dtype}`", fix=close(dtype, sorted(DTYPES)))
            return broken
        sizes = _sizes(shape)
        if error := next(filter(None, map(_expression_error, sizes)), None):
            self.wrong(path, f"{what} `{name}` has a size that cannot be read", error)
            return broken
        return Input(dtype, sizes, bool(optional), self.document.place(path))

    def nodes(self, path: KeyPath, data: Mapping[str, Any]) -> dict[str, Node]:
        found: dict[str, Node] = {}
        taken = data.get("inputs")
        for name, value in self.mapping((*path, "nodes"), data.get("nodes"), "nodes").items():
            here = (*path, "nodes", name)
            self.name(here, name)
            if isinstance(taken, dict) and name in taken:
                self.wrong(here, f"`{name}` is both an input and a node", fix="rename one of them")
            found[name] = self.node(here, name, value)
        return found

    def node(self, path: KeyPath, name: str, value: Any) -> Node:
        where = self.document.place(path)
        if not isinstance(value, dict):
            self.wrong(path, f"node `{name}` must be a mapping", f"got {_kind(value)}", fix="write {use: ..., in: ...}")
            return Node("", where=where)
        self.keys(path, value, NODE_KEYS)
        use = value.get("use")
        if not isinstance(use, str) or not use:
            self.wrong(path, f"node `{name}` does not say what it uses", fix="add `use: kind.variant`")
            use = ""
        return Node(
            use=use,
            inputs=self.feed((*path, "in"), value.get("in")),
            settings=frozen(self.settings((*path, "with"), value.get("with"))),
            repeat=self.repeat((*path, "repeat"), value.get("repeat")),
            tie=frozen(self.tie((*path, "tie"), value.get("tie"))),
            lora=frozen_lora(self.lora((*path, "lora"), value.get("lora"))),
            where=where,
            places=self.places(path, NODE_KEYS),
        )

    def wire(self, path: KeyPath, value: Any) -> Wire:
        if not isinstance(value, str) or not WIRE.fullmatch(value):
            self.wrong(path, "a wire must name a node or input, such as `norm` or `experts.output`", f"got {value!r}")
            return Wire("")
        node, _, output = value.partition(".")
        return Wire(node, output or None)

    def feed(self, path: KeyPath, value: Any) -> Mapping[str, Wire] | tuple[Wire, ...]:
        if value is None:
            return ()
        if isinstance(value, dict):
            return frozen({port: self.wire((*path, port), wire) for port, wire in value.items()})
        if isinstance(value, list):
            return tuple(self.wire((*path, i), wire) for i, wire in enumerate(value))
        return (self.wire(path, value),)

    def settings(self, path: KeyPath, value: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, setting in self.mapping(path, value, "`with`").items():
            found[name] = plain = _plain(setting)
            if plain is BROKEN:
                self.wrong((*path, name), f"setting `{name}` must be a plain value", f"got {_kind(setting)}")
            elif error := next(filter(None, map(reference_error, _texts(plain))), None):
                self.wrong((*path, name), f"setting `{name}` cannot be read", error)
                found[name] = BROKEN
        return found

    def repeat(self, path: KeyPath, value: Any) -> Any:
        if value is None or type(value) is int:
            return value
        if isinstance(value, str) and value.startswith("$") and not reference_error(value):
            return value
        self.wrong(path, "`repeat` must be a whole number or `$name`", f"got {value!r}")
        return BROKEN

    def tie(self, path: KeyPath, value: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, target in self.mapping(path, value, "`tie`").items():
            parts = f"{name}.{target}".split(".")
            if "." in str(target) and all(map(NAME.fullmatch, parts)) and not any(map(keyword.iskeyword, parts)):
                found[name] = target
            else:
                self.wrong((*path, name), "`tie` must look like {weight: E.weight}", f"got {name}: {target!r}")
        return found

    def lora(self, path: KeyPath, value: Any) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name, given in self.mapping(path, value, "`lora`").items():
            here = (*path, name)
            if not MAP.fullmatch(name):
                self.wrong(here, f"`{name}` names no linear map", fix="write for instance lora: {qkv: {rank: 8}}")
                continue
            given = self.mapping(here, given, f"`lora` of `{name}`")
            self.keys(here, given, LORA_KEYS)
            found[name] = self.settings(here, given)
            if "rank" not in given:
                self.wrong(here, f"`lora` of `{name}` has no `rank`", fix="write for instance rank: 8")
                found[name]["rank"] = BROKEN
        return found

    def outputs(self, path: KeyPath, data: Mapping[str, Any], unnamed: bool) -> dict[str, Wire]:
        here = (*path, "outputs")
        value = data.get("outputs")
        if unnamed and isinstance(value, str):
            return {"": self.wire(here, value)}
        found: dict[str, Wire] = {}
        for name, wire in self.mapping(here, value, "outputs").items():
            self.name((*here, name), name)
            found[name] = self.wire((*here, name), wire)
        return found

    def blocks(self, data: Mapping[str, Any]) -> dict[str, Block]:
        found: dict[str, Block] = {}
        for name, value in self.mapping(("blocks",), data.get("blocks"), "blocks").items():
            path: KeyPath = ("blocks", name)
            self.name(path, name)
            value = self.mapping(path, value, f"block `{name}`")
            self.keys(path, value, BLOCK_KEYS)
            found[name] = Block(
                frozen(self.inputs(path, value)),
                frozen(self.nodes(path, value)),
                frozen(self.outputs(path, value, unnamed=True)),
                self.document.place(path),
                self.places(path, ("outputs",)),
            )
        return found

    def places(self, path: KeyPath, groups: Sequence[str]) -> Mapping[str, Place]:
        """Where the parts of a group stand, by `group.part`."""
        found: dict[str, Place] = {}
        for group in groups:
            here = (*path, group)
            if here in self.document.places:
                found[group] = self.document.places[here]
                found |= {f"{group}.{part}": self.document.places[(*here, part)] for part in self.parts.get(here, ())}
        return frozen(found)


def _sizes(shape: str) -> tuple[str, ...]:
    """The sizes between the commas, of which those inside `max(a, b)` are none."""
    sizes, depth = [""], 0
    for character in shape if shape.strip() else "":
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            sizes.append("")
        else:
            sizes[-1] += character
    return tuple(size.strip() for size in sizes) if shape.strip() else ()


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(value)


def _plain(value: Any) -> Any:
    """A value under `with`: lists become tuples; mappings are not plain."""
    if isinstance(value, list):
        items = tuple(map(_plain, value))
        return BROKEN if BROKEN in items else items
    return BROKEN if isinstance(value, dict) else value


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _texts(item)


def reference(text: str) -> str | None:
    """The expression inside `$name` or `${expression}`; None for a text that is just a text."""
    if text.startswith("${") and text.endswith("}"):
        return text[2:-1]
    return text[1:] if text.startswith("$") else None


def reference_error(text: str) -> str | None:
    """What is wrong with a setting that may be `$name` or `${expression}`; None where nothing is."""
    inside = reference(text)
    if inside is None:
        return None
    error = _expression_error(inside)
    braces = text.startswith("${") or NAME.fullmatch(inside)
    return error or (None if braces else f"`{text}`: write `${{{inside}}}`")


def _expression_error(text: str) -> str | None:
    try:
        dims.parse(text)
    except ValueError as error:
        return str(error)
    return None
