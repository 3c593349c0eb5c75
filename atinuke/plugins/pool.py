"""A sequence into one vector a row. A row that is wholly masked gives 0, and its `mask` says that it is absent."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from atinuke.plugins.cross_attention import CrossAttention
from atinuke.plugins.linear import INITIAL_STD
from atinuke.plugins.settings import require_positive


class Pooled(NamedTuple):
    """A vector a row, and whether anything stands behind it."""

    output: Float[Tensor, "batch width"]
    mask: Bool[Tensor, "batch"]


class MeanPool(nn.Module):
    """The mean over the positions that count."""

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self, x: Float[Tensor, "batch sequence width"], mask: Bool[Tensor, "batch sequence"] | None = None
    ) -> Pooled:
        mask = _there(x, mask)
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        counts = mask[..., None].to(precise.dtype)
        mean = (precise * counts).sum(1) / counts.sum(1).clamp(min=1)
        return Pooled(mean.to(x.dtype), mask.any(1))


class FirstPool(nn.Module):
    """What stands at the first position that counts: a class token (Devlin et al., 2019); or the mean of the first
    `count`, where a distillation token stands behind it (Touvron et al., 2021)."""

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        require_positive(count=count)
        self.count = count

    def forward(
        self, x: Float[Tensor, "batch sequence width"], mask: Bool[Tensor, "batch sequence"] | None = None
    ) -> Pooled:
        mask = _there(x, mask)
        if self.count == 1:
            return _first(x, mask)
        pooled: Pooled = MeanPool()(x, mask & (mask.cumsum(1) <= self.count))
        return pooled


class TokenPool(nn.Module):
    """What stands at the first `token` of a text that counts: the end of a text, where a causal encoder has read all of
    it (CLIP, Radford et al., 2021). A row without that token is absent."""

    def __init__(self, token: int) -> None:
        super().__init__()
        if token < 0:
            raise ValueError(f"token must be at least 0, but is {token}")
        self.token = token

    def forward(
        self,
        x: Float[Tensor, "batch sequence width"],
        input_ids: Int[Tensor, "batch sequence"],
        mask: Bool[Tensor, "batch sequence"] | None = None,
    ) -> Pooled:
        return _first(x, _there(x, mask) & (input_ids == self.token))


class LastPool(nn.Module):
    """What stands at the last position that counts: where a text that is read from left to right has been read."""

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self, x: Float[Tensor, "batch sequence width"], mask: Bool[Tensor, "batch sequence"] | None = None
    ) -> Pooled:
        mask = _there(x, mask)
        places = torch.arange(1, x.shape[1] + 1, device=x.device) * mask
        last = places.argmax(1)[:, None, None].expand(-1, -1, x.shape[2])
        there = mask.any(1)
        return Pooled(x.gather(1, last)[:, 0] * there[:, None], there)


class AttentionPooled(NamedTuple):
    """A vector a row, and whether anything stands behind it."""

    output: Float[Tensor, "batch {self.d_model}"]
    mask: Bool[Tensor, "batch"]


class AttentionPool(nn.Module):
    """What one learned query finds in the positions that count (Lee et al., 2019; the probe of SigLIP)."""

    def __init__(self, d_model: int, heads: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.d_model = d_model
        self.heads = heads
        self.dropout = dropout
        self.attention = CrossAttention(d_model, d_model, heads, dropout)
        self.weight = nn.Parameter(torch.empty(d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def forward(
        self, x: Float[Tensor, "batch sequence {self.d_model}"], mask: Bool[Tensor, "batch sequence"] | None = None
    ) -> AttentionPooled:
        query = self.weight.expand(x.shape[0], 1, -1)
        there = _there(x, mask).any(1)
        return AttentionPooled(self.attention(query, x, mask)[:, 0] * there[:, None], there)


def _first(x: Tensor, mask: Tensor) -> Pooled:
    first = mask.int().argmax(1)[:, None, None].expand(-1, -1, x.shape[2])
    there = mask.any(1)
    return Pooled(x.gather(1, first)[:, 0] * there[:, None], there)


def _there(x: Tensor, mask: Tensor | None) -> Tensor:
    return x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
