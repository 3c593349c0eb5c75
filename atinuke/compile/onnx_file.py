"""A program as an ONNX model, with the names and axes of its interface."""

import ast
from typing import Any

from torch import Tensor

from atinuke.compile.export import dynamic_shapes, export, quiet
from atinuke.compile.onnx_export import to_onnx
from atinuke.compile.programs import Program
from atinuke.runtime.interface import settled

OPSET = 20


def onnx_model(program: Program, inputs: tuple[Tensor, ...], opset: int = OPSET) -> Any:
    """The `onnx.ModelProto`. Free sizes of inputs and outputs are named as in the interface; nothing tells where the
    source stood."""
    interface = program.interface
    exported = export(program, inputs)
    with quiet():
        model = to_onnx(
            exported,
            opset,
            dynamic_shapes=dynamic_shapes(program),
            input_names=[port.name for port in interface.inputs],
            output_names=[port.name for port in interface.outputs],
            optimize=True,
        )
    for values, ports in ((model.graph.input, interface.inputs), (model.graph.output, interface.outputs)):
        for tensor, port in zip(values, ports, strict=True):
            for dim, size in zip(tensor.type.tensor_type.shape.dim, port.shape, strict=True):
                if (value := settled(size, program.axes)) is not None:
                    dim.dim_value = value
                else:
                    dim.dim_param = str(size)
    for node in model.graph.node:
        node.name = f"{_path(node)}/{node.name}"
        del node.metadata_props[:]
        node.doc_string = ""
    return model


def _path(node: Any) -> str:
    """The path of the node of the graph that an ONNX node was made from; empty where it belongs to none."""
    notes = {note.key: note.value for note in node.metadata_props}
    scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))[:-1]
    inner = scopes[-1] if scopes else ""
    return inner.partition("model.")[2].replace(".component", "")
