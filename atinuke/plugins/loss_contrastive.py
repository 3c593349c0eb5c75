"""Losses that bring together what belongs together, and part it from all others in the batch.

The first two are of two modalities: the vectors of one row belong to each other. They are of length 1
(head.projection). `mask` says which rows are pairs; one that lacks a modality does not count, neither as a pair nor as
anybody's contrast. Where no row counts, loss and gradients are 0.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from atinuke.plugins.loss import IGNORED
from atinuke.plugins.loss_supervised import mean_cross_entropy
from atinuke.plugins.settings import require_positive

LARGEST = 100.0


class ContrastiveLoss(nn.Module):
    """The cross-entropy of each row's partner among all, both ways, of cosines divided by a learned temperature (CLIP,
    Radford et al., 2021), which does not fall below 0.01."""

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        self.temperature = temperature
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(
        self,
        first: Float[Tensor, "batch width"],
        second: Float[Tensor, "batch width"],
        mask: Bool[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        precise = torch.promote_types(first.dtype, torch.float32)
        scale = self.log_scale.to(precise).clamp(max=math.log(LARGEST)).exp()
        products = (first.to(precise) @ second.to(precise).t()).to(precise)  # which autocast makes bf16
        scores = scale * products
        labels = torch.arange(first.shape[0], device=first.device)
        if mask is None:
            there, back = scores, scores.t()
        else:
            labels = labels.masked_fill(~mask, IGNORED)
            lowest = torch.finfo(precise).min  # a row of minus infinities would be NaN
            there, back = scores.masked_fill(~mask, lowest), scores.t().masked_fill(~mask, lowest)
        return ((mean_cross_entropy(there, labels) + mean_cross_entropy(back, labels)) / 2).to(first.dtype)


class SigmoidContrastiveLoss(nn.Module):
    """Whether each two rows belong together, asked of every two alone, with a learned temperature and bias (SigLIP,
    Zhai et al., 2023): summed over all of them and divided by the number of rows."""

    def __init__(self, temperature: float = 0.1, bias: float = -10.0) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        self.temperature = temperature
        self.bias = bias
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.offset = nn.Parameter(torch.tensor(float(bias)))

    def forward(
        self,
        first: Float[Tensor, "batch width"],
        second: Float[Tensor, "batch width"],
        mask: Bool[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        precise = torch.promote_types(first.dtype, torch.float32)
        products = (first.to(precise) @ second.to(precise).t()).to(precise)  # which autocast makes bf16
        scores = self.log_scale.to(precise).exp() * products
        row = torch.arange(first.shape[0], device=first.device)
        sign = torch.where(row[:, None] == row, 1.0, -1.0)
        losses = F.softplus(-sign * (scores + self.offset.to(precise)))  # logsigmoid overflows in ONNX Runtime
        if mask is None:
            return (losses.sum() / first.shape[0]).to(first.dtype)
        total = losses.masked_fill(~(mask[:, None] & mask), 0.0).sum()
        return (total / mask.sum().clamp(min=1).to(precise)).to(first.dtype)


class SupervisedContrastiveLoss(nn.Module):
    """Minus the logarithm of the probability of each other row of the same label among all other rows, by cosines
    divided by `temperature`: the mean over these, then over the rows that have any (Khosla et al., 2020; where two rows
    have a label, the loss of Chen et al., 2020). Labels of -100 do not count, nor as anybody's contrast."""

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        self.temperature = temperature

    def forward(self, vectors: Float[Tensor, "batch width"], labels: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
        unit = F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)
        row = torch.arange(labels.shape[0], device=labels.device)
        counts = labels != IGNORED
        others = counts[:, None] & counts & (row[:, None] != row)
        alike = others & (labels[:, None] == labels)
        cosines = (unit @ unit.t()).to(unit.dtype)  # which autocast makes bf16
        scores = (cosines / self.temperature).masked_fill(~others, torch.finfo(unit.dtype).min)
        losses = scores.logsumexp(1, keepdim=True) - scores
        partners = alike.sum(1)
        each = losses.masked_fill(~alike, 0.0).sum(1) / partners.clamp(min=1).to(unit.dtype)
        return (each.sum() / (partners > 0).sum().clamp(min=1).to(unit.dtype)).to(vectors.dtype)
