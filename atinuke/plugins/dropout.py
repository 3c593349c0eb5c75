"""Values that are dropped at random while training."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

PARTS = 2**16  # a rate is a multiple of one of these where we draw ourselves


class Dropout(nn.Module):
    """Sets each value to zero with probability `rate` while training, and scales the rest by 1/(1-rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be at least 0 and below 1, but is {rate}")
        self.rate = rate

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return drop(x, self.rate) if self.training else x


def drop(x: Tensor, rate: float) -> Tensor:
    """x with each value zero with probability `rate`, and the rest scaled by 1/(1-rate).

    On a CPU most of the time of PyTorch's own dropout goes into one draw of 64 bits for each value. Here that is the
    draw of four values, 16 bits each, which takes a quarter of it (docs/log.md); a compiler does better still.
    """
    if not rate:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, rate)
    dropped = min(max(round(rate * PARTS), 1), PARTS - 1)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    draws.random_(-(2**63), None)  # without its bounds the highest bit would never be set
    noise = torch.empty_like(x, requires_grad=False)
    torch.ge(draws.view(torch.int16)[: x.numel()].view(x.shape), dropped - PARTS // 2, out=noise)
    return x * noise.mul_(PARTS / (PARTS - dropped))
