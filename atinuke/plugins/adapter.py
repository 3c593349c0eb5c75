"""Bottleneck adapters: small networks between the frozen layers of a pretrained model."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from atinuke.plugins.linear import Linear
from atinuke.plugins.settings import require_positive


class BottleneckAdapter(nn.Module):
    """x + up(GELU(down(x))), through `size` channels (Houlsby et al., 2019; Pfeiffer et al., 2021). `up` starts at
    zero, so that a model into which it is put says what it said before."""

    def __init__(self, d_model: int, size: int) -> None:
        super().__init__()
        require_positive(d_model=d_model, size=size)
        self.d_model = d_model
        self.size = size
        self.down = Linear(d_model, size)
        self.up = Linear(size, d_model)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return x + self.up(F.gelu(self.down(x)))
