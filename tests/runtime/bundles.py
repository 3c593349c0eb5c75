"""Small sealed bundles of ONNX files written by hand: a model of one call, and a decoder with a memory."""

import json
from pathlib import Path
from typing import Any

from atinuke.runtime.bundle import GRAPH, TOKENIZER, WEIGHTS, Bundle, Text
from atinuke.runtime.interface import Interface, Port
from atinuke.runtime.lock import LOCK, Origin, Provenance, read_lock, write_lock
from atinuke.runtime.parity import Build, Call, Difference, Parity, Texts
from atinuke.runtime.seal import seal

MADE = Provenance("0.1.0", {"add": Origin("", "atinuke", "0.1.0")}, {}, {"torch": "2.13.0"})

CALL = Call("forward", "corner", {"batch": 1}, (Difference("scores", 1e-6, 1.2e-6, 0.99),))
CERTIFICATE = Parity("drawn", (Build("onnx/fp32", 1e-4, (CALL,), Texts(2, 64, 0.0, 3)),), {"forward": (CALL,)})


def forward_bundle(folder: Path) -> Bundle:
    """Its scores are what it reads, and each frame is a mean of samples."""
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
    """Counts the tokens that it reads in its memory; the count has the highest score."""
    axes = {"batch": (1, 2), "sequence": (1, 8), "capacity": (1, 16)}
    cache = ("batch", 1, "capacity", 2)
    old, new = Port("past_key_values.0", "float32", cache), Port("present.0", "float32", cache)
    place, last = Port("position", "int64", ("batch",)), Port("last", "int64", ("batch",))
    scores = Port("logits", "float32", ("batch", 1, 16))
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
        (place / f"{name}.onnx").write_bytes(_onnx(name))


def _onnx(name: str) -> bytes:
    """The program as an ONNX file; only its name where there is no package onnx."""
    try:
        from onnx import checker, parser
    except ImportError:
        return name.encode()
    model = parser.parse_model(MODELS[name])
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


STEP = """<ir_version: 9, opset_import: ["": 20]>
step (%s, float[batch,1,capacity,2] "past_key_values.0")
=> (float[batch,1,16] logits, float[batch,1,capacity,2] "present.0") {
    new = Shape <start = 1, end = 2> (input_ids)
    more = Cast <to = 1> (new)
    "present.0" = Add ("past_key_values.0", more)
    axes = Constant <value_ints = [1, 2, 3]> ()
    count = ReduceMax <keepdims = 0> ("present.0", axes)
    number = Cast <to = 7> (count)
    depth = Constant <value_int = 16> ()
    bits = Constant <value_floats = [0.0, 1.0]> ()
    row = OneHot (number, depth, bits)
    one = Constant <value_ints = [1]> ()
    logits = Unsqueeze (row, one)
}"""
MODELS = {
    "forward": """<ir_version: 9, opset_import: ["": 20]>
forward (float[batch,3] x, float[batch,samples] sound) => (float[batch,3] scores, float[batch,count] frames) {
    scores = Identity (x)
    ends = Constant <value_ints = [0, 160, 0, 0]> ()
    one = Constant <value_ints = [1]> ()
    padded = Pad (sound, ends)
    channel = Unsqueeze (padded, one)
    means = AveragePool <kernel_shape = [160], strides = [160]> (channel)
    frames = Squeeze (means, one)
}""",
    "prefill": STEP % "int64[batch,sequence] input_ids, int64[batch] position, int64[batch] last",
    "decode": STEP % "int64[batch,1] input_ids, int64[batch] position",
}


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def write(folder: Path, name: str, data: Any) -> None:
    (folder / name).write_text(json.dumps(data), encoding="utf-8")


def relock(folder: Path) -> None:
    """The lock made anew: an attacker can do that too."""
    provenance = read_lock(folder).provenance
    (folder / LOCK).unlink()
    write_lock(folder, provenance)
