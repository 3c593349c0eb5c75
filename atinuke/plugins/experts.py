"""A mixture of experts in a form that every compiler takes."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from atinuke.plugins.linear import Linear
from atinuke.plugins.settings import require_positive


class Mixture(NamedTuple):
    """`balance_loss` is 1 when the experts share the tokens evenly and `experts / top_k` at worst."""

    output: Float[Tensor, "*lead {self.d_model}"]
    balance_loss: Float[Tensor, ""]


class MixtureOfExperts(nn.Module):
    """GELU feed-forward networks of which each token uses the `top_k` its router finds most probable (Shazeer et al.,
    2017), each weighted by that probability (Fedus et al., 2022), which reaches the router's gradient even at top_k 1.

    All experts are computed and those not chosen are multiplied by zero: one dense network of width experts * d_ff. No
    token is dropped, no row depends on another, and nothing depends on the data's values, so that it compiles and
    exports everywhere; the price is experts / top_k times the arithmetic.
    """

    def __init__(self, d_model: int, d_ff: int, experts: int, top_k: int = 2) -> None:
        super().__init__()
        require_positive(d_model=d_model, d_ff=d_ff, experts=experts, top_k=top_k)
        if top_k > experts:
            raise ValueError(f"top_k {top_k} is more than experts {experts}")
        self.d_model = d_model
        self.d_ff = d_ff
        self.experts = experts
        self.top_k = top_k
        self.router = Linear(d_model, experts, bias=False)
        self.up = Linear(d_model, experts * d_ff, bias=False)
        self.down = Linear(experts * d_ff, d_model, bias=False)

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Mixture:
        logits = self.router(x)
        probability = torch.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        chosen = F.one_hot(probability.topk(self.top_k, dim=-1).indices, self.experts).sum(-2).to(probability.dtype)
        weight = (probability * chosen).to(x.dtype)
        hidden = F.gelu(self.up(x)).view(*weight.shape, self.d_ff) * weight[..., None]
        return Mixture(self.down(hidden.flatten(-2)), self.balance(probability, chosen).to(x.dtype))

    def balance(self, probability: Tensor, chosen: Tensor) -> Tensor:
        """experts * sum_i f_i * P_i: f_i is the share of all choices that fell on expert i, P_i its mean probability
        (equations 4 to 6 of Fedus et al., 2022, where top_k is 1)."""
        share = chosen.reshape(-1, self.experts).mean(0) / self.top_k
        return self.experts * (share * probability.reshape(-1, self.experts).mean(0)).sum()
