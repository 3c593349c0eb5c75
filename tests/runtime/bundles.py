"""Small sealed bundles: a model of one call, and a decoder with a memory, as ONNX files that nobody trained."""

import json
from pathlib import Path
from typing import Any

from atinuke.runtime.bundle import GRAPH, TOKENIZER, WEIGHTS, Bundle, Text
from atinuke.runtime.interface import Interface, Port
from atinuke.runtime.lock import LOCK, Origin, Provenance, read_lock, write_lock
from atinuke.runtime.seal import seal

MADE = Provenance("0.1.0", {"add": Origin("", "atinuke", "0.1.0")}, {}, {"torch": "2.13.0"})


def forward_bundle(folder: Path) -> Bundle:
    """Adds a picture to itself."""
    axes = {"batch": (1, 4), "samples": (160, 320)}
    inputs = (Port("x", "float32", ("batch", 3)), Port("sound", "float32", ("batch", "samples")))
    outputs = (Port("scores", "float32", ("batch", 3)), Port("frames", "float32", ("batch", "samples//160 + 1")))
    fields = {"sound": {"name": "audio", "rate": 8000, "longest": 30.0, "multiple": 1, "mask": None, "optional": False}}
    classes = {"scores": ("cat", "dog", "a|b`c")}
    programs = {"forward": Interface(inputs, outputs, {})}
    bundle = Bundle(folder, "adder", axes, programs, None, fields, classes, ("onnx/fp32",))
    _files(bundle)
    seal(bundle, MADE)
    return bundle


def text_bundle(folder: Path) -> Bundle:
    """Counts what it has read in a memory, and its scores are those of the counts."""
    axes = {"batch": (1, 2), "sequence": (1, 8), "capacity": (1, 16)}
    cache = ("batch", 1, "capacity", 2)
    old, new = Port("past_key_values.0", "float32", cache), Port("present.0", "float32", cache)
    place, last = Port("position", "int64", ("batch",)), Port("last", "int64", ("batch",))
    scores = Port("logits", "float32", ("batch", 1, 5))
    memory = {"past_key_values.0": "present.0"}
    programs = {
        "prefill": Interface(
            (Port("input_ids", "int64", ("batch", "sequence")), place, last, old), (scores, new), memory
        ),
        "decode": Interface((Port("input_ids", "int64", ("batch", 1)), place, old), (scores, new), memory),
    }
    bundle = Bundle(folder, "counter", axes, programs, Text("<end>", 16, True), {}, {}, ("onnx/fp32",))
    _files(bundle)
    (folder / TOKENIZER).write_text("{}", encoding="utf-8")
    seal(bundle, MADE)
    return bundle


def _files(bundle: Bundle) -> None:
    place = bundle.place("onnx/fp32")
    place.mkdir(parents=True)
    (bundle.folder / GRAPH).write_text("atinuke: 1\n", encoding="utf-8")
    (bundle.folder / WEIGHTS).write_bytes(bytes(range(256)))
    for name in bundle.programs:
        (place / f"{name}.onnx").write_bytes(name.encode())


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def write(folder: Path, name: str, data: Any) -> None:
    (folder / name).write_text(json.dumps(data), encoding="utf-8")


def relock(folder: Path) -> None:
    """The lock made anew: an attacker can do that too."""
    provenance = read_lock(folder).provenance
    (folder / LOCK).unlink()
    write_lock(folder, provenance)
