"""Attention of one sequence to another: how a text looks at what was heard or seen."""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from atinuke.plugins.attend import attend
from atinuke.plugins.linear import Linear
from atinuke.plugins.masks import full_mask
from atinuke.plugins.settings import require_positive


class CrossAttention(nn.Module):
    """Multi-head attention with queries from `x` and keys and values from `memory` (Vaswani et al., 2017, 3.2.3).

    `mask` says which positions of the memory count; a query whose memory is wholly masked gives 0 (before the output
    projection). `dropout` is that of the attention weights. `head_dim` is d_model / heads unless it is given; scores
    are divided by its root if they are `scaled`, which those of T5 (Raffel et al., 2020) are not.
    """

    def __init__(
        self,
        d_model: int,
        memory_dim: int,
        heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        head_dim: int | None = None,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        require_positive(d_model=d_model, memory_dim=memory_dim, heads=heads)
        if head_dim is None and d_model % heads:
            raise ValueError(f"d_model {d_model} is not a multiple of heads {heads}")
        width = d_model // heads if head_dim is None else head_dim
        require_positive(head_dim=width)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, but is {dropout}")
        self.d_model = d_model
        self.memory_dim = memory_dim
        self.heads = heads
        self.dropout = dropout
        self.bias = bias
        self.head_dim = head_dim
        self.scaled = scaled
        self.query = Linear(d_model, heads * width, bias)
        self.key_value = Linear(memory_dim, 2 * heads * width, bias, parts={"k": heads * width, "v": heads * width})
        self.output = Linear(heads * width, d_model, bias)

    def forward(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        memory: Float[Tensor, "batch memory {self.memory_dim}"],
        mask: Bool[Tensor, "batch memory"] | None = None,
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        key, value = self._keys_values(memory)
        return self._attend(x, key, value, mask)

    def prepare(
        self,
        memory: Float[Tensor, "batch memory {self.memory_dim}"],
        mask: Bool[Tensor, "batch memory"] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values, each `[batch, heads, memory, head_dim]`, and which positions of the memory count."""
        key, value = self._keys_values(memory)
        return key, value, full_mask(memory) if mask is None else mask

    def step(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        position: Int[Tensor, "batch"],
        key: Tensor,
        value: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """The same for new tokens, with what `prepare` gave."""
        return self._attend(x, key, value, mask)

    def _keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        key, value = map(self._split, self.key_value(memory).chunk(2, dim=-1))
        return key, value

    def _attend(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query, dropout = self._split(self.query(x)), self.dropout if self.training else 0.0
        scale = None if self.scaled else 1.0
        if mask is None:
            return self._join(attend(query, key, value, scale=scale, dropout=dropout))
        # A softmax over nothing is 0 in one backend and a mean in another: such a query sees everything, times 0.
        sees = mask.any(-1)[:, None, None, None]
        visible = mask[:, None, None, :] | ~sees
        return self._join(attend(query, key, value, visible, scale=scale, dropout=dropout) * sees)

    def _join(self, mixed: Tensor) -> Tensor:
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """`[batch, heads, positions, head_dim]`."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
