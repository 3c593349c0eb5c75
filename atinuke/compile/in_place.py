"""A step that writes into the caches it is given, for targets that can bind them: none is ever copied."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from atinuke.compile.precision import Narrowed, cast
from atinuke.compile.programs import Program, StepProgram
from atinuke.runtime.interface import Interface


class InPlaceStep(nn.Module):
    """step() over a flat row of tensors, of which the last `memory` are caches in `dtype`; only answers come out."""

    def __init__(self, program: StepProgram, memory: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.program = program
        self.memory = memory
        self.dtype = dtype

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        fresh, state = cast(tensors[: -self.memory], self.dtype), tensors[-self.memory :]
        outputs, _ = self.program.step(*fresh, state=state)
        answers: tuple[Tensor, ...] = cast(tuple(outputs), torch.float32)
        return answers


def in_place(program: Program) -> Program:
    """The program, perhaps narrowed, with caches in its own dtype that it writes into: inputs that a call changes. One
    without caches stays as it is."""
    interface = program.interface
    if not interface.memory:
        return program
    dtype, step = torch.float32, program.module
    if isinstance(step, Narrowed):
        dtype, step = step.dtype, step.program
    assert isinstance(step, StepProgram)
    own = {"float32": str(dtype).removeprefix("torch.")}
    inputs = tuple(
        replace(port, dtype=own.get(port.dtype, port.dtype)) if port.name in interface.memory else port
        for port in interface.inputs
    )
    outputs = tuple(port for port in interface.outputs if port.name not in interface.memory.values())
    module = InPlaceStep(step, len(interface.memory), dtype)
    return replace(program, module=module, interface=Interface(inputs, outputs, {}))


def as_taken(program: Program, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs in the dtypes that the program takes."""
    ports = program.interface.inputs
    return tuple(tensor.to(getattr(torch, port.dtype)) for port, tensor in zip(ports, inputs, strict=True))
