"""A sequence of any length into one of fixed length."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from atinuke.plugins.cross_attention import CrossAttention
from atinuke.plugins.linear import INITIAL_STD
from atinuke.plugins.settings import require_positive


class Resampled(NamedTuple):
    """The latents of each row, and whether they count: not where the row's memory was wholly masked."""

    output: Float[Tensor, "batch {self.latents} {self.d_model}"]
    mask: Bool[Tensor, "batch {self.latents}"]


class Resampler(nn.Module):
    """Learned latents that attend to a sequence and are added to what they found (Perceiver, Jaegle et al., 2021;
    Flamingo, Alayrac et al., 2022). Further layers are attention.cross with these latents as `x`."""

    def __init__(self, d_model: int, memory_dim: int, latents: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        require_positive(latents=latents)
        self.d_model = d_model
        self.memory_dim = memory_dim
        self.latents = latents
        self.heads = heads
        self.dropout = dropout
        self.attention = CrossAttention(d_model, memory_dim, heads, dropout)
        self.weight = nn.Parameter(torch.empty(latents, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def forward(
        self,
        memory: Float[Tensor, "batch memory {self.memory_dim}"],
        mask: Bool[Tensor, "batch memory"] | None = None,
    ) -> Resampled:
        latents = self.weight.expand(memory.shape[0], -1, -1)
        there = memory.new_ones(memory.shape[:1], dtype=torch.bool) if mask is None else mask.any(1)
        return Resampled(latents + self.attention(latents, memory, mask), there[:, None].expand(-1, self.latents))
