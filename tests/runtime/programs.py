"""Interfaces of a classifier and of an encoder-decoder, and ONNX files that have them and give zeros."""

from pathlib import Path
from typing import Any

import pytest

from atinuke.runtime.bundle import Bundle
from atinuke.runtime.interface import Interface, Port

onnx = pytest.importorskip("onnx", reason="the files of these tests are made with onnx")
AXES = {"batch": (1, 4), "sequence": (1, 16), "source": (2, 8), "capacity": (1, 16), "fixed": (3, 3)}
IDS = Port("input_ids", "int64", ("batch", "sequence"))
POSITION, LAST = Port("position", "int64", ("batch",)), Port("last", "int64", ("batch",))
OLD, NEW = (
    Port("past.0", "float32", ("batch", 2, "capacity", 8)),
    Port("present.0", "float32", ("batch", 2, "capacity", 8)),
)
BETWEEN = (Port("prepared.0", "float32", ("batch", "source", 8)), Port("prepared.1", "bool", ("batch", "source")))
LOGITS = Port("logits", "float32", ("batch", 1, 31))
ROWS = {
    "forward": Interface(
        (Port("pixels", "uint8", ("batch", "fixed", "sequence")), Port("mask", "bool", ("batch",))),
        (
            Port("scores", "float32", ("batch", "fixed + 1")),
            Port("frames", "float32", ("batch", "2*sequence + 1")),
            Port("best", "int64", ("batch",)),
        ),
        {},
    )
}
STEPS = {
    "prepare": Interface((Port("source_ids", "int64", ("batch", "source")),), BETWEEN, {}),
    "prefill": Interface((IDS, POSITION, LAST, *BETWEEN, OLD), (LOGITS, NEW), {"past.0": "present.0"}),
    "decode": Interface(
        (Port("input_ids", "int64", ("batch", 1)), POSITION, *BETWEEN, OLD), (LOGITS, NEW), {"past.0": "present.0"}
    ),
}
TYPES = {"int64": 7, "float32": 1, "bool": 9, "uint8": 2}  # onnx.TensorProto


def onnx_of(interface: Interface, wrong: dict[str, Port] | None = None) -> Any:
    """A model with the inputs and outputs of an interface, which gives zeros; `wrong` stands for a port of its name."""
    helper = onnx.helper
    settled = {"fixed": 3, "fixed + 1": 4}

    def info(port: Port) -> Any:
        port = (wrong or {}).get(port.name, port)
        shape = [settled.get(str(size), size) for size in port.shape]
        return helper.make_tensor_value_info(port.name, TYPES[port.dtype], shape)

    nodes = [
        helper.make_node("Shape", [interface.inputs[0].name], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
    ]
    initial = [helper.make_tensor("zero", 7, [], [0])]
    outputs = [info(port) for port in interface.outputs]
    for place, value in enumerate(outputs):
        kind = value.type.tensor_type
        initial.append(helper.make_tensor(f"ones{place}", 7, [len(kind.shape.dim)], [1] * len(kind.shape.dim)))
        nodes.append(helper.make_node("Mul", ["rows", f"ones{place}"], [f"sizes{place}"]))
        zero = helper.make_tensor(f"value{place}", kind.elem_type, [1], [0])
        nodes.append(helper.make_node("ConstantOfShape", [f"sizes{place}"], [value.name], value=zero))
    graph = helper.make_graph(nodes, "zeros", [info(port) for port in interface.inputs], outputs, initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def bundle_of(folder: Path, programs: dict[str, Interface], *builds: str, **wrong: Port) -> Bundle:
    bundle = Bundle(folder, "little", AXES, programs, None, {}, {}, builds or ("onnx/fp32",))
    for build in bundle.builds:
        bundle.place(build).mkdir(parents=True)
        for name, interface in programs.items():
            onnx.save(onnx_of(interface, wrong), bundle.place(build) / f"{name}.onnx")
    return bundle
