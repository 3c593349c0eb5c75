"""T5's attention: scores that are not scaled, and a learned bias for the distance between query and key."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from atinuke.plugins.attention import Heads, score_bias
from atinuke.plugins.linear import INITIAL_STD
from atinuke.plugins.settings import require_positive


class RelativePosition(nn.Module):
    """The bias of each head at each distance, for attention.relative (Raffel et al., 2020): column reach + i - j is
    that of query i and key j, and distances beyond `reach` have the bias of `reach`.

    A head learns a number for each of `buckets` of distances: half of them hold one distance each, the others are wider
    the farther they reach, up to `reach`. Where attention is `causal` all are for keys before the query, otherwise half
    of them. Numbers start from a normal distribution of deviation 0.02.
    """

    bucket: Tensor

    def __init__(self, heads: int, buckets: int = 32, reach: int = 128, causal: bool = False) -> None:
        super().__init__()
        require_positive(heads=heads)
        near = (buckets if causal else buckets // 2) // 2
        if near < 1:
            raise ValueError(f"buckets must be at least {2 if causal else 4}, but are {buckets}")
        if reach <= near:
            raise ValueError(f"reach {reach} must be above {near}, which as many of the {buckets} buckets hold alone")
        self.heads = heads
        self.buckets = buckets
        self.reach = reach
        self.causal = causal
        self.weight = nn.Parameter(torch.empty(buckets, heads))
        self.register_buffer("bucket", bucket_of(torch.arange(-reach, reach + 1), buckets, reach, causal))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def forward(self) -> Float[Tensor, "{self.heads} 2*{self.reach}+1"]:
        return F.embedding(self.bucket, self.weight).t()


def bucket_of(distance: Tensor, buckets: int, reach: int, causal: bool) -> Tensor:
    """The bucket of a key that stands `distance` positions before the query, as in Mesh TensorFlow."""
    first = torch.zeros_like(distance)
    if causal:
        distance = distance.clamp(min=0)
    else:
        buckets //= 2
        first = torch.where(distance < 0, buckets, 0)
        distance = distance.abs()
    near = buckets // 2
    share = torch.log(distance.clamp(min=1).float() / near) / math.log(reach / near)
    far = near + (share * (buckets - near)).long()
    return first + torch.where(distance < near, distance, far.clamp(max=buckets - 1))


class RelativeAttention(Heads):
    """Multi-head attention of a text to itself as in T5 (Raffel et al., 2020): what position.relative gives is added to
    the scores, which are not divided by sqrt(head_dim), and no linear map has a bias. heads * head_dim may differ from
    d_model.

    Query i sees key j where 0 <= i-j (causal) and attention_mask[batch, j]. A query that sees nothing gives 0.
    `dropout` is that of the attention weights.
    """

    scale = 1.0

    def __init__(self, d_model: int, heads: int, head_dim: int, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__(d_model, heads, None, dropout, False, head_dim)
        self.causal = causal

    def forward(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        biases: Float[Tensor, "{self.heads} distances"],
        attention_mask: Bool[Tensor, "batch sequence"] | None = None,
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        query, key, value = self._project(x, None)
        place = torch.arange(x.shape[1], device=x.device)
        distance = (place[:, None] - place)[None]
        visible = self._visible(distance)
        return self._join(self._attend_visible(query, key, value, visible, attention_mask, _at(biases, distance)))

    def step(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        position: Int[Tensor, "batch"],
        keys: Float[Tensor, "batch heads capacity head_dim"],
        values: Float[Tensor, "batch heads capacity head_dim"],
        biases: Float[Tensor, "{self.heads} distances"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Writes the new keys and values into the caches, all of which are read."""
        query, key, value = self._project(x, None)
        place = position[:, None] + torch.arange(x.shape[1], device=x.device)
        self._remember(key, value, keys, values, place)
        distance = place[..., None] - torch.arange(keys.shape[2], device=x.device)
        bias = score_bias(self._visible(distance), _at(biases, distance), x.dtype)
        return self._join(self._attend_cached(query, keys, values, bias)), keys, values

    def state(self, batch: int, capacity: int) -> tuple[Tensor, Tensor]:
        """Empty caches of keys and values, each `[batch, heads, capacity, head_dim]`.

        Raises ValueError where attention is not causal.
        """
        if not self.causal:
            raise ValueError("attention that is not causal needs the whole text at once and has no incremental form")
        return super().state(batch, capacity)

    def _visible(self, distance: Tensor) -> Tensor:
        """Whether a query may see a key at `distance[batch or 1, queries, keys]` before it."""
        visible = distance >= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
        return visible[:, None]


def _at(biases: Tensor, distance: Tensor) -> Tensor:
    """The biases at `distance[batch or 1, queries, keys]`: `[batch or 1, heads, queries, keys]`."""
    columns = biases.shape[1]
    return F.embedding((distance + columns // 2).clamp(0, columns - 1), biases.t()).permute(0, 3, 1, 2)
