"""ONNX: one file a program."""

from pathlib import Path

from atinuke.compile.builder import Builder, Work
from atinuke.compile.onnx_file import onnx_model
from atinuke.compile.precision import HALVES, narrow


class OnnxBuilder(Builder):
    """Files that ONNX Runtime opens, and every other tool that reads ONNX."""

    precisions = ("fp32", "fp16")
    packages = ("onnx", "onnxscript")
    extra = "onnx"

    def build(self, work: Work, folder: Path) -> None:
        import onnx

        for name, program in work.programs.items():
            if work.precision in HALVES:
                program = narrow(program, HALVES[work.precision], work.float32)
            onnx.save(onnx_model(program, work.inputs[name]), folder / f"{name}.onnx")
