"""A program in half precision: weights and wires are narrow, what comes in and goes out stays as the interface says,
and chosen nodes stay in float32."""

import copy
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from atinuke.compile.module import exchange, parts
from atinuke.compile.programs import Program

HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def narrow(program: Program, dtype: torch.dtype, float32: Collection[str] = ()) -> Program:
    """The program with weights in `dtype`; its floating inputs and outputs stay float32.

    The nodes of the paths `float32` keep their weights and compute in float32. A wire carries what the node before it
    computes in, so nothing is rounded between two nodes that are kept, or on the way out. A weight that is tied to one
    of another precision becomes a weight of its own.
    """
    module: Any = copy.deepcopy(program.module)
    model = module.model
    copied: dict[int, Any] = {}  # one for all nodes, so that weights stay tied among them
    wide = {path: copy.deepcopy(model.get_submodule(path), copied) for path in float32}
    model.to(dtype)
    for path, component in list(parts(model)):
        exchange(model, path, Computing(wide.get(path, component), torch.float32 if path in wide else dtype))
    return replace(program, module=Narrowed(module, dtype))


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors in another dtype; tuples go through, named ones stay named."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple):
        casts = [cast(part, dtype) for part in value]
        return type(value)(*casts) if hasattr(value, "_fields") else tuple(casts)
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


class Computing(nn.Module):
    """A component that takes whatever its neighbours compute in and computes in `dtype`."""

    def __init__(self, component: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.component: Any = component
        self.dtype = dtype

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.component(*cast(inputs, self.dtype), **self._cast(named))

    def step(self, *inputs: Any, **named: Any) -> Any:
        return self.component.step(*cast(inputs, self.dtype), **self._cast(named))

    def prepare(self, *inputs: Any, **named: Any) -> Any:
        return self.component.prepare(*cast(inputs, self.dtype), **self._cast(named))

    def state(self, batch: int, capacity: int) -> tuple[Tensor, ...]:
        state: tuple[Tensor, ...] = self.component.state(batch, capacity)
        return state

    def _cast(self, named: dict[str, Any]) -> dict[str, Any]:
        return {name: cast(value, self.dtype) for name, value in named.items()}
