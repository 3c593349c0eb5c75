"""A program in half precision: weights and wires are narrow, what comes in and goes out stays as the interface says,
and chosen nodes stay in float32."""

import copy
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from atinuke.compile.programs import Program

HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def narrow(program: Program, dtype: torch.dtype, float32: Collection[str] = ()) -> Program:
    """The program with weights in `dtype`; its floating inputs and outputs stay float32. The nodes of the paths
    `float32` keep their weights, and what goes into them is widened."""
    module: Any = copy.deepcopy(program.module)
    model = module.model
    kept = {path: model.get_submodule(path) for path in float32}
    wide = {path: copy.deepcopy(node) for path, node in kept.items()}
    model.to(dtype)
    for path, node in wide.items():
        parent, _, name = path.rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, name, InFloat32(node, dtype))
    return replace(program, module=Narrowed(module, dtype))


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors in another dtype; tuples go through, named ones stay named."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple):
        parts = [cast(part, dtype) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


class Narrowed(nn.Module):
    """A program that computes in `dtype`."""

    def __init__(self, program: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.program = program
        self.dtype = dtype

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = cast(tuple(self.program(*cast(tensors, self.dtype))), torch.float32)
        return outputs


class InFloat32(nn.Module):
    """A component that computes in float32 between neighbours that do not."""

    def __init__(self, component: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.component = component
        self.dtype = dtype

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self._wide(self.component, inputs, named)

    def step(self, *inputs: Any, **named: Any) -> Any:
        return self._wide(self.component.step, inputs, named)

    def prepare(self, *inputs: Any, **named: Any) -> Any:
        return self._wide(self.component.prepare, inputs, named)

    def _wide(self, call: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        wide = {name: cast(value, torch.float32) for name, value in named.items()}
        return cast(call(*cast(inputs, torch.float32), **wide), self.dtype)
