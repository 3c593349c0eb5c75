"""A program as an ONNX model in one of the precisions: what all targets that read ONNX share."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from atinuke.compile.onnx_file import OPSET, onnx_model
from atinuke.compile.precision import HALVES, narrow
from atinuke.compile.programs import Program
from atinuke.core.errors import fail

PRECISIONS = ("fp32", "fp16", "bf16")


def onnx_in(
    program: Program,
    inputs: tuple[Tensor, ...],
    precision: str,
    float32: Collection[str] = (),
    calibration: Sequence[tuple[Tensor, ...]] = (),
    opset: int = OPSET,
) -> Any:
    """The `onnx.ModelProto` of a program in a precision; inputs and outputs are as the interface says.

    The nodes of the paths `float32` stay in float32. `calibration` has inputs like `inputs`, from which int8 and fp8
    take the ranges of activations; int8 without it measures them at run time.

    Raises:
        AtinukeError: the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise fail(f"there is no precision `{precision}`", f"there is {', '.join(PRECISIONS)}")
    if precision in HALVES:
        program = narrow(program, HALVES[precision], float32)
    return onnx_model(program, inputs, opset)
