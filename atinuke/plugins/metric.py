"""Figures that are logged beside the loss, and not minimised."""

from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from atinuke.plugins.loss import IGNORED
from atinuke.plugins.settings import require_positive


class Accuracy(nn.Module):
    """The share of labels that have the highest score. Labels of -100 do not count; where none does it is 0."""

    training_only: ClassVar[bool] = True

    def __init__(self, classes: int) -> None:
        super().__init__()
        require_positive(classes=classes)
        self.classes = classes

    def forward(self, scores: Float[Tensor, "*lead {self.classes}"], labels: Int[Tensor, "*lead"]) -> Float[Tensor, ""]:
        counts = labels != IGNORED
        right = (scores.detach().argmax(-1) == labels) & counts
        return right.sum().to(scores.dtype) / counts.sum().clamp(min=1).to(scores.dtype)
