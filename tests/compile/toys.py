"""A plugin for the tests of costs: components whose work is of many kinds."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from atinuke.core.component import Component
from atinuke.core.hookspecs import hookimpl


class Patches(nn.Module):
    """Work that depends on rounded sizes."""

    def __init__(self, patch: int = 16, d_model: int = 8) -> None:
        super().__init__()
        self.patch, self.d_model = patch, d_model
        self.project = nn.Conv2d(3, d_model, patch, patch)

    def forward(
        self, pixel_values: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch (height//{self.patch})*(width//{self.patch}) {self.d_model}"]:
        return self.project(pixel_values).flatten(2).transpose(1, 2)


class Window(nn.Module):
    """Work with a bend that no port mentions."""

    def __init__(self, window: int = 300) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Float[Tensor, "batch sequence 8"]) -> Float[Tensor, "batch sequence 8"]:
        near = x[:, : self.window]
        return torch.softmax(x @ near.transpose(1, 2), dim=-1) @ near


class Growing(nn.Module):
    """Work that depends on the layer although the parameters do not."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Float[Tensor, "batch sequence 8"]) -> Float[Tensor, "batch sequence 8"]:
        for _ in range(self.layer):
            x = x @ x.transpose(1, 2) @ x
        return x


class Reader(nn.Module):
    """Looks at values, which do not exist on the meta device."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "batch sequence 8"]) -> Float[Tensor, "batch sequence 8"]:
        return x * float(x.sum())


class Chunks(nn.Module):
    """Pads what it multiplies to whole chunks of 8 rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 8))

    def forward(self, x: Float[Tensor, "*lead 8"]) -> Float[Tensor, "*lead 8"]:
        rows = x.flatten(0, -2)
        padded = functional.pad(rows, (0, 0, 0, -len(rows) % 8))
        return torch.cat([chunk @ self.weight for chunk in padded.split(8)])[: len(rows)].view_as(x)


@torch.library.custom_op("toys::opaque", mutates_args=())
def opaque(x: Tensor) -> Tensor:
    return x @ x.transpose(-1, -2)


@torch.library.custom_op("toys::known", mutates_args=())
def known(x: Tensor) -> Tensor:
    return x @ x.transpose(-1, -2)


@opaque.register_fake
@known.register_fake
def _square(x: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:2], x.shape[1])


@register_flop_formula(torch.ops.toys.known)
def _known_flops(x: tuple[int, ...], *_: object, **__: object) -> int:
    return 2 * x[0] * x[1] ** 2 * x[2]


class Opaque(nn.Module):
    """Uses an operator of its own, of which torch may know how to count it."""

    def __init__(self, counted: bool) -> None:
        super().__init__()
        self.counted = counted

    def forward(self, x: Float[Tensor, "batch sequence 8"]) -> Float[Tensor, "batch sequence sequence"]:
        return torch.ops.toys.known(x) if self.counted else torch.ops.toys.opaque(x)


class Order(nn.Module):
    """Gives whole numbers."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "batch sequence 8"]) -> Int[Tensor, "batch sequence 8"]:
        return x.argsort(-1)


class Counter(nn.Module):
    """Has a state of two dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Float[Tensor, "batch sequence 8"]) -> Float[Tensor, "batch sequence 8"]:
        return x.cumsum(1) * self.weight

    def step(
        self, x: Float[Tensor, "batch sequence 8"], position: Int[Tensor, "batch"], *state: Tensor
    ) -> tuple[Tensor, ...]:
        total = x.cumsum(1) + state[0][:, None]
        return total * self.weight, total[:, -1], state[1] + x.shape[1]

    def state(self, batch: int, capacity: int) -> tuple[Tensor, ...]:
        like = self.weight
        return like.new_zeros(batch, 8), torch.zeros(batch, 1, dtype=torch.int32, device=like.device)


@hookimpl
def atinuke_components() -> Iterable[Component]:
    for cls in (Patches, Window, Growing, Reader, Chunks, Opaque, Order, Counter):
        yield Component(cls.__name__.lower(), f"{__name__}:{cls.__name__}", cls.__doc__ or "")
