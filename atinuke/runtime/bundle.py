"""A deployed model as a folder: what its programs are called with, and what was built of them.

config.json            what `Bundle` holds
graph.yaml             the graph, with the axes that it was compiled for
model.safetensors      the weights, float32
tokenizer.json         where it reads or writes text
targets/onnx/fp32/     the files of a target in a precision
parity.json            how close each of them is to the model
atinuke.lock           versions, and the hash of every file
README.md              a card
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atinuke.core.component import import_target
from atinuke.core.errors import fail
from atinuke.core.names import close
from atinuke.core.registry import Registry
from atinuke.runtime.interface import Axes, Interface, Port
from atinuke.runtime.runner import Runner

FORMAT = 1
CONFIG, GRAPH, WEIGHTS, TOKENIZER = "config.json", "graph.yaml", "model.safetensors", "tokenizer.json"
PARITY, LOCK, CARD, TARGETS = "parity.json", "atinuke.lock", "README.md", "targets"


@dataclass(frozen=True)
class Text:
    """How the model's texts are written: the tokenizer's end of text, the longest text in tokens, and whether a text
    begins with an end of text."""

    end_of_text: str
    context: int
    begins: bool


@dataclass(frozen=True)
class Bundle:
    """What a bundle says of itself.

    `fields` says of inputs how they are read from what people have, in the words of a recipe's fields
    (`{"name": "audio", "rate": 8000, "multiple": 1600, "mask": "sample_mask"}`); `classes` are the names of an output's
    last axis. `builds` are the targets and precisions there are, such as `onnx/fp32`.
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
        return self.folder / TARGETS / build

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
        "programs": {name: _plain(interface) for name, interface in bundle.programs.items()},
        "text": vars(bundle.text) if bundle.text else None,
        "fields": {name: dict(field) for name, field in bundle.fields.items()},
        "classes": {name: list(names) for name, names in bundle.classes.items()},
        "builds": list(bundle.builds),
    }
    (bundle.folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def open_bundle(folder: Path) -> Bundle:
    """The bundle in a folder."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return Bundle(
        folder,
        config["name"],
        {name: (low, high) for name, (low, high) in config["axes"].items()},
        {name: _interface(plain) for name, plain in config["programs"].items()},
        Text(**config["text"]) if config["text"] else None,
        config["fields"],
        {name: tuple(names) for name, names in config["classes"].items()},
        tuple(config["builds"]),
    )


def _plain(interface: Interface) -> dict[str, Any]:
    ports = {
        way: [{"name": port.name, "dtype": port.dtype, "shape": list(port.shape)} for port in getattr(interface, way)]
        for way in ("inputs", "outputs")
    }
    return {**ports, "memory": dict(interface.memory)}


def _interface(plain: Mapping[str, Any]) -> Interface:
    inputs, outputs = (
        tuple(Port(port["name"], port["dtype"], tuple(port["shape"])) for port in plain[way])
        for way in ("inputs", "outputs")
    )
    return Interface(inputs, outputs, plain["memory"])
