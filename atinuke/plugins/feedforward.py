"""Feed-forward networks: each position on its own, through a wider layer and back."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from atinuke.plugins.linear import Linear
from atinuke.plugins.settings import require_positive


class Dense(nn.Module):
    """A linear map and an activation, such as BERT's pooler (tanh) and what stands before its head (gelu)."""

    def __init__(
        self,
        d_model: int,
        d_out: int,
        activation: Literal["none", "tanh", "gelu", "gelu_tanh", "relu"] = "none",
        bias: bool = True,
    ) -> None:
        super().__init__()
        require_positive(d_model=d_model, d_out=d_out)
        self.d_model = d_model
        self.d_out = d_out
        self.activation = activation
        self.bias = bias
        self.map = Linear(d_model, d_out, bias)

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_out}"]:
        y = self.map(x)
        match self.activation:
            case "tanh":
                return y.tanh()
            case "gelu" | "gelu_tanh":
                return F.gelu(y, approximate="tanh" if self.activation == "gelu_tanh" else "none")
            case "relu":
                return F.relu(y)
        return y


class GELUFeedForward(nn.Module):
    """down(GELU(up(x))). Of the approximations of GELU (Hendrycks and Gimpel, 2016) GPT-2 has `tanh`, and CLIP has
    `sigmoid`: x * sigmoid(1.702 x)."""

    def __init__(
        self, d_model: int, d_ff: int, bias: bool = True, approximate: Literal["none", "tanh", "sigmoid"] = "none"
    ) -> None:
        super().__init__()
        require_positive(d_model=d_model, d_ff=d_ff)
        self.d_model = d_model
        self.d_ff = d_ff
        self.bias = bias
        self.approximate = approximate
        self.up = Linear(d_model, d_ff, bias)
        self.down = Linear(d_ff, d_model, bias)

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        hidden = self.up(x)
        if self.approximate == "sigmoid":
            return self.down(hidden * torch.sigmoid(1.702 * hidden))
        return self.down(F.gelu(hidden, approximate=self.approximate))


class ReLUFeedForward(nn.Module):
    """down(max(0, up(x))) (Vaswani et al., 2017)."""

    def __init__(self, d_model: int, d_ff: int, bias: bool = True) -> None:
        super().__init__()
        require_positive(d_model=d_model, d_ff=d_ff)
        self.d_model = d_model
        self.d_ff = d_ff
        self.bias = bias
        self.up = Linear(d_model, d_ff, bias)
        self.down = Linear(d_ff, d_model, bias)

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return self.down(F.relu(self.up(x)))


class Gated(nn.Module):
    """What gated feed-forward networks are made of: gate and up in one product (Shazeer, 2020)."""

    def __init__(self, d_model: int, d_ff: int, bias: bool) -> None:
        super().__init__()
        require_positive(d_model=d_model, d_ff=d_ff)
        self.d_model = d_model
        self.d_ff = d_ff
        self.bias = bias
        self.gate_up = Linear(d_model, 2 * d_ff, bias, parts={"gate": d_ff, "up": d_ff})
        self.down = Linear(d_ff, d_model, bias)


class SwiGLUFeedForward(Gated):
    """down(SiLU(gate(x)) * up(x)) (Shazeer, 2020)."""

    def __init__(self, d_model: int, d_ff: int, bias: bool = False) -> None:
        super().__init__(d_model, d_ff, bias)

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class GEGLUFeedForward(Gated):
    """down(GELU(gate(x)) * up(x)) (Shazeer, 2020); `approximate: tanh` is the form of GELU in T5 1.1."""

    def __init__(
        self, d_model: int, d_ff: int, bias: bool = False, approximate: Literal["none", "tanh"] = "none"
    ) -> None:
        super().__init__(d_model, d_ff, bias)
        self.approximate = approximate

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.gelu(gate, approximate=self.approximate) * up)
