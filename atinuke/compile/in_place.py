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


def in_place(program: Program, inputs: tuple[Tensor, ...]) -> tuple[Program, tuple[Tensor, ...]]:
    """The program, perhaps narrowed, with caches in its own dtype that it writes into, and example inputs to match. Its
    interface has no memory: the caches are inputs that a call changes."""
    interface = program.interface
    dtype, step = torch.float32, program.module
    if isinstance(step, Narrowed):
        dtype, step = step.dtype, step.program
    assert isinstance(step, StepProgram)
    memory = len(interface.memory)
    inputs = (*inputs[:-memory], *cast(inputs[-memory:], dtype))
    ports = tuple(
        replace(port, dtype=str(given.dtype).removeprefix("torch.")) if port.name in interface.memory else port
        for port, given in zip(interface.inputs, inputs, strict=True)
    )
    outputs = tuple(port for port in interface.outputs if port.name not in interface.memory.values())
    bound = Interface(ports, outputs, {})
    return replace(program, module=InPlaceStep(step, memory, dtype), interface=bound), inputs
