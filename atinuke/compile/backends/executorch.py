"""ExecuTorch with XNNPACK, for phones and edge CPUs: all programs in one file. Experimental."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from atinuke.compile.builder import Builder, Work
from atinuke.compile.export import export, quiet
from atinuke.compile.precision import HALVES, narrow
from atinuke.compile.programs import Program
from atinuke.core.errors import fail, first_line
from atinuke.runtime.executorch import FILE


class ExecutorchBuilder(Builder):
    """A .pte, whose methods are the programs."""

    precisions = ("fp32", "fp16", "int8")
    packages = ("executorch", "torchao")
    extra = "executorch"

    def build(self, work: Work, folder: Path) -> None:
        from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS, UnsqueezeCopyConfig
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

        # XNNPACK's takes a single free axis, and its partitioner does not see that there are more
        taken = [one for one in ALL_PARTITIONER_CONFIGS if one is not UnsqueezeCopyConfig]
        try:
            methods = {name: _exported(work, name, program) for name, program in work.programs.items()}
            with quiet(), torch.no_grad():
                lowered = to_edge_transform_and_lower(
                    methods,
                    partitioner=[XnnpackPartitioner(taken)],
                    compile_config=EdgeCompileConfig(_check_ir_validity=False),
                ).to_executorch()
        except Exception as error:  # whatever ExecuTorch has against the graph
            raise fail("ExecuTorch cannot have this model", f"{type(error).__name__}: {first_line(error)}") from None
        (folder / FILE).write_bytes(lowered.buffer)


def _exported(work: Work, name: str, program: Program) -> ExportedProgram:
    inputs = work.inputs[name]
    if work.precision in HALVES:
        program = narrow(program, HALVES[work.precision], work.float32)
    exported = export(program, inputs)
    if work.precision != "int8":
        return exported
    return export(replace(program, module=_quantised(exported, inputs)), inputs)


def _quantised(exported: ExportedProgram, inputs: tuple[Tensor, ...]) -> nn.Module:
    """Linear layers with weights in 8 bits, a scale a row, and inputs that are quantised when they come."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    class LinearQuantizer(XNNPACKQuantizer):  # type: ignore[misc]
        def transform_for_annotation(self, model: Any) -> Any:
            return model  # its own makes floats of the whole numbers that sizes are worked out with

    quantizer = LinearQuantizer()
    quantizer.set_operator_type(
        torch.ops.aten.linear.default, get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    )
    with quiet(), torch.no_grad():
        prepared = prepare_pt2e(exported.module(), quantizer)
        prepared(*inputs)
        return Flat(convert_pt2e(prepared))


class Flat(nn.Module):
    """A module over a flat row of tensors, as programs are; what comes out of an exported program is one of names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.module(*tensors)
        return outputs
