"""Losses of answers that are known. The mean is over what counts; where nothing does, loss and gradients are 0."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from atinuke.plugins.loss import IGNORED
from atinuke.plugins.settings import require_positive


class CrossEntropyLoss(nn.Module):
    """The mean cross-entropy of scores over classes. Labels of -100 do not count.

    With `smoothing` s a label has the probability 1-s, and s is spread over all classes (Szegedy et al., 2016).
    """

    def __init__(self, classes: int, smoothing: float = 0.0) -> None:
        super().__init__()
        require_positive(classes=classes)
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be at least 0 and below 1, but is {smoothing}")
        self.classes = classes
        self.smoothing = smoothing

    def forward(self, scores: Float[Tensor, "*lead {self.classes}"], labels: Int[Tensor, "*lead"]) -> Float[Tensor, ""]:
        return mean_cross_entropy(scores, labels, self.smoothing)


class RegressionLoss(nn.Module):
    """The mean squared error. What `mask` hides does not count, whatever its label, NaN included; a label that counts
    and is NaN makes the loss NaN."""

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self,
        values: Float[Tensor, "*lead"],
        labels: Float[Tensor, "*lead"],
        mask: Bool[Tensor, "*lead"] | None = None,
    ) -> Float[Tensor, ""]:
        difference = (values - labels).to(torch.promote_types(values.dtype, torch.float32))
        if mask is None:
            return difference.square().mean().to(values.dtype)
        # Hidden before it is squared: NaN times 0 is NaN, in the gradient too.
        total = difference.masked_fill(~mask, 0.0).square().sum()
        return (total / mask.sum().clamp(min=1).to(total.dtype)).to(values.dtype)


class SpanLoss(nn.Module):
    """Minus the logarithm of the probability that scores over positions give to the right ones, the mean over all rows
    and points (such as where an answer begins, and where it ends).

    `labels` are 1 where a point is right; of several, any will do (Clark and Gardner, 2018). What `mask` hides is no
    position, and a point that is right nowhere does not count.
    """

    def __init__(self, points: int = 2) -> None:
        super().__init__()
        require_positive(points=points)
        self.points = points

    def forward(
        self,
        scores: Float[Tensor, "batch sequence {self.points}"],
        labels: Int[Tensor, "batch sequence {self.points}"],
        mask: Bool[Tensor, "batch sequence"] | None = None,
    ) -> Float[Tensor, ""]:
        precise = scores.to(torch.promote_types(scores.dtype, torch.float32))
        least = torch.finfo(precise.dtype).min
        right = labels > 0
        if mask is not None:
            right = right & mask[..., None]
            precise = precise.masked_fill(~mask[..., None], least)
        counts = right.any(1)
        missed = precise.logsumexp(1) - precise.masked_fill(~right, least).logsumexp(1)
        total = missed.masked_fill(~counts, 0.0).sum()
        return (total / counts.sum().clamp(min=1).to(total.dtype)).to(scores.dtype)


def mean_cross_entropy(scores: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy of `scores[..., classes]` over labels that are not -100, summed in float32 at least."""
    kept = labels != IGNORED
    log_probs = F.log_softmax(scores.to(torch.promote_types(scores.dtype, torch.float32)), dim=-1)
    of_labels = log_probs.gather(-1, labels.where(kept, 0).long()[..., None])[..., 0]
    if smoothing:  # written out: torch's own is lost on the way to ONNX (torch 2.13)
        of_labels = (1 - smoothing) * of_labels + smoothing * log_probs.mean(-1)
    total = of_labels.masked_fill(~kept, 0.0).sum()
    return (-total / kept.sum().clamp(min=1).to(total.dtype)).to(scores.dtype)
