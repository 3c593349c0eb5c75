"""A program as an ONNX model in one of the precisions: what all targets that read ONNX share."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from atinuke.compile import quantise
from atinuke.compile.onnx_file import OPSET, onnx_model
from atinuke.compile.onnx_graph import split_gemms
from atinuke.compile.precision import HALVES, narrow
from atinuke.compile.programs import Program
from atinuke.compile.ranges import ranges
from atinuke.core.errors import fail

PRECISIONS = ("fp32", *HALVES, *quantise.WEIGHTS)


def onnx_in(
    program: Program,
    inputs: tuple[Tensor, ...],
    precision: str,
    float32: Collection[str] = (),
    *,
    calibration: Sequence[tuple[Tensor, ...]] = (),
    rest: str = "fp32",
    tables: bool = False,
    groups: bool = True,
    opset: int = OPSET,
) -> Any:
    """The `onnx.ModelProto` of a program in a precision; inputs and outputs are as the interface says.

    The nodes of the paths `float32` stay in float32. A quantised model has opset 21 at least, and `rest` is the
    precision of all that is not quantised. `calibration` has inputs like `inputs`, from which int8 and fp8 take fixed
    ranges of activations, the form that TensorRT wants; int8 without it measures them at run time. `tables` quantises
    embeddings too, which ONNX Runtime alone takes; `groups` of weights share a scale where weights alone are quantised.

    Raises:
        AtinukeError: the precision is unknown, fp8 is not calibrated, or int8 that is measured at run time is wanted in
            a half precision.
    """
    if precision not in PRECISIONS:
        raise fail(f"there is no precision `{precision}`", f"there is {', '.join(PRECISIONS)}")
    quantised = precision in quantise.WEIGHTS
    half = rest if quantised else precision
    if precision == "int8" and half in HALVES and not calibration:
        raise fail(
            "int8 that is measured at run time has the rest in fp32", fix="give inputs to calibrate with, or rest fp32"
        )
    if half in HALVES:
        program = narrow(program, HALVES[half], float32)
    model = onnx_model(program, inputs, max(opset, quantise.OPSET) if quantised else opset)
    if quantised:
        split_gemms(model)
        names = [port.name for port in program.interface.inputs]
        batches = [{name: one.numpy() for name, one in zip(names, batch, strict=True)} for batch in calibration]
        seen = ranges(model, batches) if batches and precision in ("int8", "fp8") else None
        quantise.quantise(model, precision, float32, seen, tables, groups)
    return model
