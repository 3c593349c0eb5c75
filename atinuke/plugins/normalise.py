"""Normalisation of one recording by its own mean and variance."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from atinuke.plugins.masks import full_mask
from atinuke.plugins.settings import require_positive


class Normalise(nn.Module):
    """Mean 0 and variance 1 over the frames of each row that count, for every feature by itself (cepstral mean and
    variance normalisation); of a waveform, over its samples. Frames that do not count become 0."""

    def __init__(self, eps: float = 1e-7) -> None:
        super().__init__()
        require_positive(eps=eps)
        self.eps = eps

    def forward(
        self, x: Float[Tensor, "batch frames *features"], mask: Bool[Tensor, "batch frames"] | None = None
    ) -> Float[Tensor, "batch frames *features"]:
        mask = full_mask(x) if mask is None else mask
        hidden = ~mask.view(*mask.shape, *[1] * (x.dim() - 2))
        precise = x.to(torch.promote_types(x.dtype, torch.float32)).masked_fill(hidden, 0)
        count = (~hidden).sum(1, keepdim=True).clamp(min=1)
        centred = (precise - precise.sum(1, keepdim=True) / count).masked_fill(hidden, 0)
        variance = centred.square().sum(1, keepdim=True) / count
        return (centred * (variance + self.eps).rsqrt()).to(x.dtype)
