"""ONNX: one file a program, and one of the weights that they share."""

from pathlib import Path

from atinuke.compile.builder import Builder, Work
from atinuke.compile.onnx_attention import attend_in_place
from atinuke.compile.onnx_graph import written_once
from atinuke.compile.onnx_precision import onnx_in
from atinuke.compile.onnx_save import save_shared
from atinuke.runtime.onnx import IN_PLACE


class OnnxBuilder(Builder):
    """Files for ONNX Runtime: a program's own, and `weights.bin` of several. `decode` has an operator of its own for
    attention; all else is plain ONNX.

    int8 measures activations at run time. A file says in its metadata which caches a call may write into.
    """

    precisions = ("fp32", "fp16", "int8", "int8-weights", "int4-weights")
    packages = ("onnx", "onnxscript")
    extra = "onnx"

    def refusal(self, work: Work) -> str | None:
        if work.precision == "bf16":
            return "ONNX Runtime has no kernels for bf16 on a CPU; build fp16 or int8"
        if work.precision == "fp8":
            return "ONNX Runtime computes fp8 in float on a CPU, so that nothing is gained; build int8"
        return None

    def build(self, work: Work, folder: Path) -> None:
        models = {}
        for name, program in work.programs.items():
            model = onnx_in(program, work.inputs[name], work.precision, work.float32, tables=True)
            if name == "decode":
                attend_in_place(model)
            memory = program.interface.memory
            safe = [port for port in memory if written_once(model, port, memory[port])]
            model.metadata_props.add(key=IN_PLACE, value=" ".join(safe))
            models[name] = model
        save_shared(models, folder)
