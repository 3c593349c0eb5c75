"""Learned tokens that join a sequence."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from atinuke.plugins.linear import INITIAL_STD
from atinuke.plugins.masks import full_mask
from atinuke.plugins.settings import require_positive


class WithClassToken(NamedTuple):
    """`mask` is true at the class token, and everywhere where none came in."""

    output: Float[Tensor, "batch sequence+1 {self.d_model}"]
    mask: Bool[Tensor, "batch sequence+1"]


class ClassToken(nn.Module):
    """Puts one learned vector, the same for every row, in front of a sequence: what it has gathered from the others
    behind the last layer stands for the whole (Devlin et al., 2019; Dosovitskiy et al., 2021). Where it is `placed` a
    second learned vector, its position, is added. Both start from a normal distribution of deviation 0.02."""

    def __init__(self, d_model: int, placed: bool = False) -> None:
        super().__init__()
        require_positive(d_model=d_model)
        self.d_model = d_model
        self.placed = placed
        self.weight = nn.Parameter(torch.empty(d_model))
        if placed:
            self.position = nn.Parameter(torch.empty(d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for vector in self.parameters():
            nn.init.normal_(vector, std=INITIAL_STD)

    def forward(
        self, x: Float[Tensor, "batch sequence {self.d_model}"], mask: Bool[Tensor, "batch sequence"] | None = None
    ) -> WithClassToken:
        if mask is None:
            mask = full_mask(x)
        token = self.weight + self.position if self.placed else self.weight
        token = token.expand(x.shape[0], 1, -1)
        return WithClassToken(torch.cat((token, x), dim=1), torch.cat((mask.new_ones(x.shape[0], 1), mask), dim=1))
