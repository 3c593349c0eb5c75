"""OpenVINO: an intermediate representation a program (`.xml` and `.bin`), in which the precision is stated.

Left to itself OpenVINO computes in bf16 on CPUs that have it, and rounds the activations of compressed weights to
8 bits. So each file says what it wants of the engine, under `atinuke` in its information; the runner asks just that.
"""

import tempfile
from pathlib import Path

from atinuke.compile.builder import Builder, Work
from atinuke.compile.onnx_precision import onnx_in
from atinuke.compile.onnx_save import save_shared
from atinuke.runtime.openvino import HINT, SECTION, WIDTH

INT8_GROUP = 128
"""How many activations share a scale where they are quantised at run time; fewer are slower and hardly closer."""


class OpenVINOBuilder(Builder):
    """Files for OpenVINO on CPUs.

    bf16 is a file in float32 that is computed in bf16 wherever the engine holds that to be safe: as fast as a file in
    bf16 at a quarter of its error. Where nodes are to stay in float32, the file itself is in bf16 and says which. fp16
    halves the file and is computed in float32, since hardly a CPU has arithmetic in fp16. int8 has weights in 8 bits,
    with a scale for each output, rounds activations at run time, in groups, and computes the rest in bf16 if the CPU
    that it is built on can.
    """

    precisions = ("fp32", "bf16", "fp16", "int8", "int8-weights", "int4-weights")
    packages = ("onnx", "onnxscript", "openvino")
    extra = "onnx,openvino"

    def build(self, work: Work, folder: Path) -> None:
        import openvino

        int8 = work.precision == "int8"
        can = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        engine_narrows = not work.float32 and (work.precision == "bf16" or (int8 and "BF16" in can))
        file_precision = {"int8": "int8-weights", "bf16": "fp32" if engine_narrows else "bf16"}.get(
            work.precision, work.precision
        )
        for name, program in work.programs.items():
            with tempfile.TemporaryDirectory() as scratch:
                made = onnx_in(program, work.inputs[name], file_precision, work.float32, groups=not int8)
                save_shared({name: made}, Path(scratch))
                model = openvino.Core().read_model(Path(scratch) / f"{name}.onnx")
                model.set_rt_info("bf16" if engine_narrows else "f32", [SECTION, HINT])
                model.set_rt_info(str(INT8_GROUP if int8 else 0), [SECTION, WIDTH])
                openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=False)
