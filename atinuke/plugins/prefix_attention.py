"""Prefix-causal attention: what is given is read as a whole, and what follows is written token by token."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atinuke.plugins.attention import Heads, penalty, score_bias


class PrefixAttention(Heads):
    """Multi-head attention of a text to itself in which the positions of a prefix see each other in both directions and
    all others see the past only (the prefix LM of T5, Raffel et al., 2020; PaliGemma, Beyer et al., 2024).

    Query i sees key j where 0 <= i-j, or prefix_mask[batch, i] and prefix_mask[batch, j]; and attention_mask[batch, j].
    Everything else is as in attention.self, which without a prefix it is.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__(d_model, heads, kv_heads, dropout, bias)

    def forward(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        prefix_mask: Bool[Tensor, "batch sequence"],
        attention_mask: Bool[Tensor, "batch sequence"] | None = None,
        rotation: Float[Tensor, "batch sequence {self.d_model}//{self.heads}"] | None = None,
        slopes: Float[Tensor, "{self.heads}"] | None = None,
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        query, key, value = self._project(x, rotation)
        place = torch.arange(x.shape[1], device=x.device)
        distance = (place[:, None] - place)[None, None]
        visible = _visible(distance, prefix_mask, prefix_mask)
        added = penalty(distance, slopes, x.dtype)
        return self._join(self._attend_visible(query, key, value, visible, attention_mask, added))

    def step(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        position: Int[Tensor, "batch"],
        keys: Float[Tensor, "batch kv_heads capacity head_dim"],
        values: Float[Tensor, "batch kv_heads capacity head_dim"],
        prefix_mask: Bool[Tensor, "batch sequence"],
        rotation: Float[Tensor, "batch sequence {self.d_model}//{self.heads}"] | None = None,
        slopes: Float[Tensor, "{self.heads}"] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same for new tokens, if those of the prefix all come in one step (tokens of an earlier one cannot see
        them) and `prefix_mask` is false for padding."""
        query, key, value = self._project(x, rotation)
        place = position[:, None] + torch.arange(x.shape[1], device=x.device)
        self._remember(key, value, keys, values, place)
        distance = place[:, None, :, None] - torch.arange(keys.shape[2], device=x.device)
        row = torch.arange(x.shape[0], device=x.device)[:, None]
        prefix = torch.zeros((x.shape[0], keys.shape[2]), dtype=torch.bool, device=x.device)
        prefix = prefix.index_put((row, place), prefix_mask)
        visible = _visible(distance, prefix_mask, prefix)
        bias = score_bias(visible, penalty(distance, slopes, x.dtype), x.dtype)
        return self._join(self._attend_cached(query, keys, values, bias)), keys, values


def _visible(distance: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """Whether a query sees a key, given which `queries[batch, n]` and `keys[batch, m]` belong to the prefix."""
    return (distance >= 0) | (queries[:, None, :, None] & keys[:, None, None, :])
