"""Connectionist temporal classification: labels in order, without saying at which frame each one is."""

from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from atinuke.plugins.loss import IGNORED
from atinuke.plugins.settings import require_positive


class Aligned(NamedTuple):
    """The loss, and the number of rows left out because their frames are too few for their labels."""

    loss: Float[Tensor, ""]
    unaligned: Int[Tensor, ""]


class CTCLoss(nn.Module):
    """Minus the logarithm of the probability that the frames spell the labels (Graves et al., 2006), by label, and the
    mean of that over the rows: torch's `ctc_loss`.

    `scores` need not be normalised (log-probabilities may be given: they stay as they are). Labels of -100 and frames
    that `mask` hides are left out wherever they stand. A row without labels does not count. One that cannot be aligned
    does not either, and is counted in `unaligned`. Where no row counts, loss and gradients are 0.

    Raises IndexError for a label outside 0..classes-1 or equal to the blank.
    """

    training_only: ClassVar[bool] = True

    def __init__(self, classes: int, blank: int = 0) -> None:
        super().__init__()
        require_positive(classes=classes)
        if not 0 <= blank < classes:
            raise ValueError(f"blank must be 0 to classes-1 = {classes - 1}, but is {blank}")
        self.classes = classes
        self.blank = blank

    def forward(
        self,
        scores: Float[Tensor, "batch frames {self.classes}"],
        labels: Int[Tensor, "batch targets"],
        mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Aligned:
        precise = scores.to(torch.promote_types(scores.dtype, torch.float32))
        heard = scores.new_ones(scores.shape[:2], dtype=torch.bool) if mask is None else mask
        if mask is not None:
            precise = precise.gather(1, _first(mask)[..., None].expand(-1, -1, self.classes))
        said = labels != IGNORED
        targets = labels.long().where(said, 0).gather(1, _first(said))
        log_probs = F.log_softmax(precise, dim=-1).transpose(0, 1)
        frames, lengths = heard.sum(1), said.sum(1)
        losses: Tensor = ctc_loss(log_probs, targets, frames, lengths, self.blank)[0]
        aligned = ~losses.isinf()
        counts = aligned & (lengths > 0)
        by_label = losses.masked_fill(~counts, 0.0) / lengths.clamp(min=1).to(losses.dtype)
        loss = by_label.sum() / counts.sum().clamp(min=1).to(losses.dtype)
        return Aligned(loss.to(scores.dtype), (~aligned & (lengths > 0)).sum())


def _first(kept: Tensor) -> Tensor:
    """The order of the positions in which those that are kept come first."""
    return (~kept).int().argsort(dim=1, stable=True)


@torch.library.custom_op("atinuke::ctc_loss", mutates_args=())
def ctc_loss(log_probs: Tensor, targets: Tensor, frames: Tensor, lengths: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Minus the log-probability of each row's targets, infinite where they cannot be aligned, and its gradient by
    `log_probs[frames, batch, classes]`.

    An opaque operator, because the sizes inside torch's depend on the lengths, which no compiler can follow.

    Raises:
        IndexError: a target is not a class, or is the blank; torch's would read beyond the scores.
    """
    used = torch.arange(targets.shape[1], device=targets.device) < lengths[:, None]
    wrong = used & ((targets < 0) | (targets >= log_probs.shape[2]) | (targets == blank))
    if wrong.any():
        raise IndexError(
            f"CTC labels are 0 to {log_probs.shape[2] - 1} but the blank {blank}: {targets[wrong][0].item()}"
        )
    losses, alpha = torch.ops.aten._ctc_loss.Tensor(log_probs, targets, frames, lengths, blank, True)
    gradient = torch.ops.aten._ctc_loss_backward.Tensor(
        torch.ones_like(losses), log_probs, targets, frames, lengths, losses, alpha, blank, True
    )
    return losses, gradient


@ctc_loss.register_fake
def _shapes(log_probs: Tensor, targets: Tensor, frames: Tensor, lengths: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    return log_probs.new_empty(log_probs.shape[1]), torch.empty_like(log_probs)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    return gradient * scale[:, None], None, None, None, None


ctc_loss.register_autograd(_backward, setup_context=_save)
