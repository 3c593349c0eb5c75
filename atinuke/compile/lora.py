"""Low-rank updates of linear maps (LoRA, Hu et al., 2021): the module, and merging it away."""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LoRALinear(nn.Linear):
    """`base` with a trainable low-rank update: y = W x + b + alpha/rank * B A x (Hu et al., 2021).

    The parameters of the base stay what they are, under their own names. `lora_A` holds an A `[rank, in]` for every
    part, one above the other, and `lora_B` a B `[outputs of the part, rank]`. A starts at random, as PEFT's does, and B
    at zero, so nothing is changed at first. `parts` are some of those that the base names in its own `parts`, a mapping
    of names to outputs in their order; without it the update is of the whole map. `dropout` is that of what A reads
    while training.
    """

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, parts: Sequence[str] | None = None, dropout: float = 0.0
    ) -> None:
        super(nn.Linear, self).__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.rank, self.scale, self.dropout = rank, alpha / rank, dropout
        ranges = part_ranges(base)
        chosen = [""] if parts is None else [part for part in ranges if part in parts]
        self.ranges = [ranges[part] for part in chosen]
        """The outputs that are updated, from one up to another, in their order."""
        self.sizes, self.updated = _pieces(self.ranges, base.out_features)
        outputs = sum(stop - start for start, stop in self.ranges)
        self.lora_A = nn.Parameter(self.weight.new_empty(rank * len(chosen), base.in_features))
        self.lora_B = nn.Parameter(self.weight.new_zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.merged: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.merged is not None:
            return F.linear(x, self.merged, self.bias)
        whole = F.linear(x, self.weight, self.bias)
        low = F.linear(F.dropout(x, self.dropout, self.training), self.lora_A) * self.scale
        if self.updated == [True]:
            return whole + F.linear(low, self.lora_B)
        lows, ups = iter(low.split_with_sizes(self._ranks(), -1)), iter(self.ups())
        parts = zip(whole.split_with_sizes(self.sizes, -1), self.updated, strict=True)
        return torch.cat([y + F.linear(next(lows), next(ups)) if updated else y for y, updated in parts], -1)

    def downs(self) -> tuple[Tensor, ...]:
        """The A `[rank, in]` of each part that is updated."""
        return tuple(self.lora_A.split_with_sizes(self._ranks()))

    def ups(self) -> tuple[Tensor, ...]:
        """The B `[outputs of the part, rank]` of each part that is updated."""
        return tuple(self.lora_B.split_with_sizes([stop - start for start, stop in self.ranges]))

    def _ranks(self) -> list[int]:
        return [self.rank] * len(self.ranges)

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """W + alpha/rank * B A `[out, in]`, worked out in float32 or wider."""
        precise = torch.promote_types(self.weight.dtype, torch.float32)
        lows, ups = iter(self.downs()), iter(self.ups())
        rows = [
            weight.to(precise) + self.scale * (next(ups).to(precise) @ next(lows).to(precise)) if updated else weight
            for weight, updated in zip(self.weight.split_with_sizes(self.sizes), self.updated, strict=True)
        ]
        return torch.cat([row.to(self.weight.dtype) for row in rows])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"


def part_ranges(linear: nn.Linear) -> dict[str, tuple[int, int]]:
    """Where the outputs of each part of a linear map begin and end; those of all of it under the name ""."""
    stops = list(accumulate(getattr(linear, "parts", {}).values(), initial=0))
    return {"": (0, linear.out_features), **dict(zip(getattr(linear, "parts", {}), pairwise(stops), strict=True))}


def _pieces(ranges: Sequence[tuple[int, int]], outputs: int) -> tuple[list[int], list[bool]]:
    """All outputs in pieces: the size of each, and whether it is one of the ranges."""
    ends = sorted({0, outputs, *(end for found in ranges for end in found)})
    pieces = list(pairwise(ends))
    return [stop - start for start, stop in pieces], [piece in ranges for piece in pieces]


def merge(model: nn.Module) -> None:
    """Lets every updated map of a model read one matrix instead of three. Its weights stay what they are, and
    `unmerge` takes it back exactly; until then changed weights have no effect."""
    for module in model.modules():
        if isinstance(module, LoRALinear):
            module.merged = module.merged_weight()


def unmerge(model: nn.Module) -> None:
    """Takes `merge` back."""
    for module in model.modules():
        if isinstance(module, LoRALinear):
            module.merged = None
