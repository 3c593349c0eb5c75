"""Self-attention: the one place where heads, masks and caches are dealt with."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from atinuke.plugins.attend import attend
from atinuke.plugins.linear import INITIAL_STD, Linear
from atinuke.plugins.settings import require_positive


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turns channels i and i + head_dim/2 of `x[..., head_dim]` by the angle whose cosine is `rotation[..., i]` and
    whose sine is `rotation[..., i + head_dim/2]`."""
    cos, sin = rotation.chunk(2, dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Heads(nn.Module):
    """What attention of a text to itself is made of: projections, `kv_heads` keys and values for `heads` queries
    (Ainslie et al., 2023), and caches. Who sees whom is for the subclasses to say."""

    scale: float | None = None  # of the scores; None is head_dim**-0.5

    def __init__(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None,
        dropout: float,
        bias: bool,
        head_dim: int | None = None,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        require_positive(d_model=d_model, heads=heads, kv_heads=kv_heads)
        if head_dim is None and d_model % heads:
            raise ValueError(f"d_model {d_model} is not a multiple of heads {heads}")
        head_dim = d_model // heads if head_dim is None else head_dim
        require_positive(head_dim=head_dim)
        if heads % kv_heads:
            raise ValueError(f"heads {heads} is not a multiple of kv_heads {kv_heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, but is {dropout}")
        self.d_model = d_model
        self.heads = heads
        self.kv_heads = kv_heads
        self.head_dim = head_dim
        self.dropout = dropout
        self.bias = bias
        parts = {"q": heads * head_dim, "k": kv_heads * head_dim, "v": kv_heads * head_dim}
        self.qkv = Linear(d_model, sum(parts.values()), bias, parts)
        self.output = Linear(heads * head_dim, d_model, bias)

    def state(self, batch: int, capacity: int) -> tuple[Tensor, Tensor]:
        """Empty caches of keys and values, each `[batch, kv_heads, capacity, head_dim]`."""
        weight = self.qkv.weight
        shape = (batch, self.kv_heads, capacity, self.head_dim)
        keys, values = (torch.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in range(2))
        return keys, values

    def _project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each `[batch, heads, sequence, head_dim]`; one product and one rotation for all."""
        heads, kv_heads = self.heads, self.kv_heads
        mixed = self.qkv(x).view(*x.shape[:2], heads + 2 * kv_heads, self.head_dim)
        if rotation is None:
            query, key, value = mixed.split_with_sizes((heads, kv_heads, kv_heads), dim=2)
        else:
            turned, value = mixed.split_with_sizes((heads + kv_heads, kv_heads), dim=2)
            query, key = rotate(turned, rotation[:, :, None]).split_with_sizes((heads, kv_heads), dim=2)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, causal: bool = False) -> Tensor:
        """With `bias` on the scores; or with none, and then perhaps `causal`."""
        return attend(query, key, value, bias, causal, self.scale, self.dropout if self.training else 0.0)

    def _attend_visible(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        visible: Tensor,
        attention_mask: Tensor | None,
        added: Tensor | None,
    ) -> Tensor:
        """To what is visible and not masked, with `added` on the scores. Only a mask can hide everything from a query:
        a softmax over nothing is 0 in one backend and a mean in another, so such a query sees everything, times 0."""
        if attention_mask is None:
            return self._attend(query, key, value, score_bias(visible, added, query.dtype))
        visible = visible & attention_mask[:, None, None, :]
        sees = visible.any(-1, keepdim=True)
        return self._attend(query, key, value, score_bias(visible | ~sees, added, query.dtype)) * sees

    def _remember(self, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, place: Tensor) -> None:
        """Writes new keys and values into the caches, at `place[batch, sequence]`."""
        row = torch.arange(key.shape[0], device=key.device)[:, None, None]
        head = torch.arange(self.kv_heads, device=key.device)[:, None]
        keys[row, head, place[:, None]] = key
        values[row, head, place[:, None]] = value

    def _attend_cached(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        attend = self._attend_one if query.shape[2] == 1 else self._attend
        return attend(query, keys, values, bias)

    def _attend_one(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """The same for one query a row, which reads the caches once for all queries of a group. The fused kernel is no
        faster at this in float32 and up to 8 times slower in bfloat16 (torch 2.13 on a CPU)."""
        batch, capacity = keys.shape[0], keys.shape[2]
        rows, group = batch * self.kv_heads, self.heads // self.kv_heads
        bias = bias.expand(batch, self.heads, 1, capacity).reshape(rows, group, capacity)
        grouped = query.reshape(rows, group, self.head_dim)
        scores = torch.baddbmm(bias, grouped, keys.flatten(0, 1).transpose(1, 2), alpha=self._scale())
        return torch.bmm(torch.softmax(scores, dim=-1), values.flatten(0, 1)).view_as(query)

    def _scale(self) -> float:
        return self.head_dim**-0.5 if self.scale is None else self.scale

    def _join(self, mixed: Tensor) -> Tensor:
        return self.output(mixed.transpose(1, 2).flatten(2))


class SelfAttention(Heads):
    """Multi-head attention of a text to itself (Vaswani et al., 2017): `kv_heads` keys and values for `heads` queries
    (Ainslie et al., 2023), of the past only (`causal`), within a sliding `window` (Beltagy et al., 2020).

    Query i sees key j where 0 <= i-j (causal), |i-j| < window, and attention_mask[batch, j]. A query that sees nothing
    gives 0 (before the output projection). `rotation` comes from position.rotary and `slopes` from position.alibi.
    `dropout` is that of the attention weights.

    In front of all keys, for every query that sees any, stand `learned_prefix` keys and values that are parameters
    (prefix tuning, Li and Liang, 2021): at no position, so neither rotated nor sloped.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None = None,
        causal: bool = True,
        window: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        learned_prefix: int = 0,
    ) -> None:
        super().__init__(d_model, heads, kv_heads, dropout, bias)
        self._look(causal, window, learned_prefix)

    def _look(self, causal: bool, window: int | None, learned_prefix: int) -> None:
        """Who sees whom, and what stands in front of all."""
        if window is not None:
            require_positive(window=window)
        if learned_prefix < 0:
            raise ValueError(f"learned_prefix must be at least 0, but is {learned_prefix}")
        self.causal = causal
        self.window = window
        self.learned_prefix = learned_prefix
        if learned_prefix:
            shape = (self.kv_heads, learned_prefix, self.head_dim)
            self.prefix_key, self.prefix_value = (nn.Parameter(torch.empty(shape)) for _ in range(2))
            for parameter in (self.prefix_key, self.prefix_value):
                nn.init.normal_(parameter, std=INITIAL_STD)

    def forward(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        attention_mask: Bool[Tensor, "batch sequence"] | None = None,
        rotation: Float[Tensor, "batch sequence {self.d_model}//{self.heads}"] | None = None,
        slopes: Float[Tensor, "{self.heads}"] | None = None,
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        query, key, value = self._project(x, rotation)
        if attention_mask is None and slopes is None and self.window is None and not self.learned_prefix:
            # A flag in place of a mask takes half the time.
            return self._join(self._attend(query, key, value, None, self.causal))
        place = torch.arange(x.shape[1], device=x.device)
        distance = (place[:, None] - place)[None, None]
        visible = self._visible(distance)
        added = penalty(distance, slopes, x.dtype)
        return self._join(self._attend_visible(query, key, value, visible, attention_mask, added))

    def step(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        position: Int[Tensor, "batch"],
        keys: Float[Tensor, "batch kv_heads capacity head_dim"],
        values: Float[Tensor, "batch kv_heads capacity head_dim"],
        rotation: Float[Tensor, "batch sequence {self.d_model}//{self.heads}"] | None = None,
        slopes: Float[Tensor, "{self.heads}"] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Writes the new keys and values into the caches. All of what is passed is read, so pass a view of a larger
        cache (`cache[:, :, :bound]`). There is no attention_mask: `position` tells rows of different lengths apart."""
        query, key, value = self._project(x, rotation)
        place = position[:, None] + torch.arange(x.shape[1], device=x.device)
        self._remember(key, value, keys, values, place)
        distance = place[:, None, :, None] - torch.arange(keys.shape[2], device=x.device)
        bias = score_bias(self._visible(distance), penalty(distance, slopes, x.dtype), x.dtype)
        return self._join(self._attend_cached(query, keys, values, bias)), keys, values

    def state(self, batch: int, capacity: int) -> tuple[Tensor, Tensor]:
        """Empty caches of keys and values, each `[batch, kv_heads, capacity, head_dim]`.

        Raises ValueError where attention is not causal.
        """
        if not self.causal:
            raise ValueError("attention that is not causal needs the whole text at once and has no incremental form")
        return super().state(batch, capacity)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, causal: bool = False) -> Tensor:
        return super()._attend(query, *self._behind_prefix(key, value, bias), causal)

    def _attend_one(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        return super()._attend_one(query, *self._behind_prefix(keys, values, bias))

    def _behind_prefix(self, key: Tensor, value: Tensor, bias: Any) -> tuple[Tensor, Tensor, Any]:
        """Keys, values and what is added to the scores, with the learned prefix in front."""
        if not self.learned_prefix:
            return key, value, bias
        key, value = (
            torch.cat((prefix.expand(tokens.shape[0], -1, -1, -1), tokens), dim=2)
            for prefix, tokens in ((self.prefix_key, key), (self.prefix_value, value))
        )
        return key, value, F.pad(bias, (self.learned_prefix, 0))

    def _visible(self, distance: Tensor) -> Tensor:
        """Whether a query may see a key at that distance behind it."""
        visible = distance >= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
        return visible if self.window is None else visible & (distance.abs() < self.window)


class WideAttention(SelfAttention):
    """attention.self with heads of `head_dim` channels, whatever d_model is: those of Mistral NeMo are narrower than
    d_model / heads."""

    def __init__(
        self,
        d_model: int,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        causal: bool = True,
        window: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        learned_prefix: int = 0,
    ) -> None:
        Heads.__init__(self, d_model, heads, kv_heads, dropout, bias, head_dim)
        self._look(causal, window, learned_prefix)

    def forward(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        attention_mask: Bool[Tensor, "batch sequence"] | None = None,
        rotation: Float[Tensor, "batch sequence {self.head_dim}"] | None = None,
        slopes: Float[Tensor, "{self.heads}"] | None = None,
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        return super().forward(x, attention_mask, rotation, slopes)

    def step(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        position: Int[Tensor, "batch"],
        keys: Float[Tensor, "batch kv_heads capacity head_dim"],
        values: Float[Tensor, "batch kv_heads capacity head_dim"],
        rotation: Float[Tensor, "batch sequence {self.head_dim}"] | None = None,
        slopes: Float[Tensor, "{self.heads}"] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return super().step(x, position, keys, values, rotation, slopes)


def penalty(distance: Tensor, slopes: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What slopes take from the scores, in float32 at least: `[batch or 1, heads, queries, keys]`."""
    if slopes is None:
        return None
    precise = torch.promote_types(dtype, torch.float32)
    return -(slopes[:, None, None].to(precise) * distance.abs().to(precise))


def score_bias(visible: Tensor, added: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What is added to the scores `[batch or 1, heads or 1, queries, keys]`: minus infinity where a key is hidden."""
    return torch.where(visible, 0.0 if added is None else added, float("-inf")).to(dtype)
