"""torch's exporter to ONNX."""

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch.export import ExportedProgram


def to_onnx(exported: ExportedProgram, opset: int, **options: Any) -> Any:
    """The `onnx.ModelProto` of an exported program; `options` are those of `torch.onnx.export`."""
    # Where a learned bias asks for gradients, attention takes another path, whose result lies otherwise in memory.
    with _library_read_once(), torch.no_grad():
        found = torch.onnx.export(exported, (), dynamo=True, opset_version=opset, verbose=False, **options)
    assert found is not None
    return found.model_proto


@contextlib.contextmanager
def _library_read_once() -> Iterator[None]:
    """For every export torch reads its library of ONNX functions from their sources, which takes longer than to export
    a small program: here they are read once for each opset."""
    from torch.onnx._internal.exporter import _registration

    registry: Any = getattr(_registration, "ONNXRegistry", None)
    read = getattr(registry, "from_torchlib", None)
    if read is None:  # a torch that has it elsewhere
        yield
        return
    own = vars(registry)["from_torchlib"]
    registry.from_torchlib = staticmethod(lambda opset_version: _library(read, opset_version))
    try:
        yield
    finally:
        registry.from_torchlib = own


@cache
def _library(read: Callable[..., Any], opset: int) -> Any:
    return read(opset_version=opset)
