"""A deployed model as a folder: what its programs are called with, and what was built of them.

config.json            what `Bundle` holds
graph.yaml             the graph, with the axes that it was compiled for
model.safetensors      the weights, float32
tokenizer.json         where it reads or writes text
targets/onnx/fp32/     the files of a target in a precision
parity.json            how close each of them is to the model
samples/               inputs and the model's answers, to compare elsewhere
atinuke.lock           versions, and the hash of every file
README.md              a card
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from atinuke.core.component import import_target
from atinuke.core.errors import fail
from atinuke.core.files import is_file, is_folder, replacing
from atinuke.core.names import close
from atinuke.core.registry import Registry
from atinuke.runtime.archive import unpack
from atinuke.runtime.config import NAME, plain, read_axes, read_build, read_classes, read_fields, read_programs
from atinuke.runtime.interface import Axes, Interface
from atinuke.runtime.lock import FORMAT, Lock, check_files
from atinuke.runtime.parity import SAMPLES
from atinuke.runtime.runner import Runner
from atinuke.runtime.sampling import Muted
from atinuke.runtime.strict import Value, read_json, require_format

CONFIG, GRAPH, WEIGHTS, TOKENIZER = "config.json", "graph.yaml", "model.safetensors", "tokenizer.json"
PARITY, CARD, TARGETS = "parity.json", "README.md", "targets"
FILES = (CONFIG, GRAPH, WEIGHTS, TOKENIZER, PARITY, CARD)


@dataclass(frozen=True)
class Text:
    """How the model's texts are written: the tokenizer's end of text, the longest text in tokens, whether a text
    begins with an end of text, or which other tokens it begins with, further tokens that end it, and those that are
    not written."""

    end_of_text: str
    context: int
    begins: bool | tuple[int, ...]
    ends: tuple[int, ...] = ()
    muted: Muted = field(default_factory=Muted)


@dataclass(frozen=True)
class Bundle:
    """What a bundle says of itself.

    `fields` says of inputs how they are read from what people have, in the words of a recipe's fields
    (`{"name": "audio", "rate": 8000, "multiple": 1600, "mask": "sample_mask"}`; see `atinuke.runtime.fields`).
    `classes` are the names of an output's last axis, CTC's blank being an empty one. `builds` are the targets and
    precisions there are, such as `onnx/fp32`.
    """

    folder: Path
    name: str
    axes: Axes
    programs: Mapping[str, Interface]
    text: Text | None
    fields: Mapping[str, Mapping[str, Any]]
    classes: Mapping[str, tuple[str, ...]]
    builds: tuple[str, ...]

    def place(self, build: str) -> Path:
        """The folder of a build."""
        return self.folder / TARGETS / build.replace(":", ".")  # no path of a bundle has a colon

    def runner(self, build: str, threads: int | None = None) -> Runner:
        """The programs of a build, ready to be called.

        Raises:
            AtinukeError: there is no such build, or this machine cannot run it.
        """
        if build not in self.builds:
            told = f"it has {', '.join(self.builds)}"
            raise fail(f"the bundle has no `{build}`", told, where=str(self.folder), fix=close(build, self.builds))
        target, _, precision = build.rpartition("/")
        found: Runner = import_target(Registry().backend(target).runner)(
            self.place(build), self.programs, self.axes, precision, threads
        )
        return found


def write_config(bundle: Bundle) -> None:
    """Writes `config.json`."""
    config = {
        "atinuke": FORMAT,
        "name": bundle.name,
        "axes": {name: list(axis) for name, axis in bundle.axes.items()},
        "programs": {name: plain(interface) for name, interface in bundle.programs.items()},
        "text": asdict(bundle.text) if bundle.text else None,
        "fields": {name: dict(field) for name, field in bundle.fields.items()},
        "classes": {name: list(names) for name, names in bundle.classes.items()},
        "builds": list(bundle.builds),
    }
    with replacing(bundle.folder / CONFIG) as draft:
        draft.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def open_bundle(path: Path) -> Bundle:
    """The bundle in a folder or a .zip, once every file has been held against the lock. A .zip is unpacked into a
    temporary folder, which goes when the process ends.

    Raises:
        AtinukeError: it is of a newer format; a file is missing, changed or too much, a link, code or a pickle; a path
            leads out of the folder; or its config says what cannot be so.
    """
    if not is_file(path) and not is_folder(path):
        raise fail("there is no such bundle", where=str(path), fix="name a bundle's folder or .zip")
    folder = unpack(path) if is_file(path) else path
    lock = check_files(folder)
    bundle = read_config(folder)
    require_layout(bundle, lock)
    return bundle


def read_config(folder: Path) -> Bundle:
    """What a folder's `config.json` says, whatever else is in the folder.

    Raises:
        AtinukeError: it says what cannot be so; the message names the place in it.
    """
    value = read_json(folder / CONFIG)
    require_format(value, FORMAT)
    told = value.record("atinuke", "name", "axes", "programs", "text", "fields", "classes", "builds")
    axes = read_axes(told["axes"])
    programs = read_programs(told["programs"], axes)
    builds = tuple(read_build(one) for one in told["builds"].items(1))
    if len({*builds}) < len(builds):
        raise told["builds"].wrong("different builds")
    return Bundle(
        folder,
        told["name"].text(NAME, "a graph's name"),
        axes,
        programs,
        told["text"].maybe(_text),
        read_fields(told["fields"], programs),
        read_classes(told["classes"], programs),
        builds,
    )


def _text(value: Value) -> Text:
    later = [key for key in ("ends", "muted") if key in value.mapping()]  # older bundles lack them
    told = value.record("end_of_text", "context", "begins", *later)
    begins = told["begins"]
    tokens = _tokens(begins, 1) if isinstance(begins.data, list) else begins.flag()
    ends = _tokens(told["ends"], 0) if "ends" in told else ()
    muted = told["muted"].record("always", "first") if "muted" in told else {}
    never = Muted(**{key: _tokens(one, 0) for key, one in muted.items()})
    return Text(told["end_of_text"].text(), told["context"].whole(), tokens, ends, never)


def _tokens(value: Value, least: int) -> tuple[int, ...]:
    return tuple(one.whole(0) for one in value.items(least))


def require_layout(bundle: Bundle, lock: Lock) -> None:
    """Every build has files, and no file is where none belongs; raises AtinukeError."""
    where = str(bundle.folder)
    places = {build: f"{bundle.place(build).relative_to(bundle.folder).as_posix()}/" for build in bundle.builds}
    for build, place in places.items():
        if not any(path.startswith(place) for path in lock.files):
            raise fail(f"{CONFIG} names the build {build}, of which there are no files", where=where)
    for path in lock.files:
        if path not in FILES and not path.startswith((f"{SAMPLES}/", *places.values())):
            raise fail(f"`{path}` is neither a bundle's own file nor of a build that {CONFIG} names", where=where)
    if bundle.text and TOKENIZER not in lock.files:
        raise fail(f"{CONFIG} says how texts are written, but there is no {TOKENIZER}", where=where)
