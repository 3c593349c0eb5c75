"""The vocabulary head fused with its loss: scores live one chunk of rows at a time."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from atinuke.plugins.linear import INITIAL_STD
from atinuke.plugins.settings import require_positive

IGNORED = -100
ROWS = 256  # rows of scores held at once: enough for full matrix speed, few enough to stay in cache


class VocabularyLoss(nn.Module):
    """The mean cross-entropy of head.vocabulary's scores, which are never held whole. Same parameters.

    Labels of -100 do not count; where none counts the loss and its gradients are 0. With `smoothing` s a label has the
    probability 1-s, and s is spread over the whole vocabulary (Szegedy et al., 2016).
    """

    def __init__(self, d_model: int, vocab_size: int, smoothing: float = 0.0, offset: bool = False) -> None:
        super().__init__()
        require_positive(d_model=d_model, vocab_size=vocab_size)
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be at least 0 and below 1, but is {smoothing}")
        self.d_model = d_model
        self.vocab_size = vocab_size
        self.smoothing = smoothing
        self.offset = offset
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
        if offset:
            self.bias = nn.Parameter(torch.empty(vocab_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)
        if self.offset:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"], labels: Int[Tensor, "*lead"]) -> Float[Tensor, ""]:
        rows, labels = x.reshape(-1, self.d_model), labels.reshape(-1).long()
        weight: Tensor = self.weight
        if self.offset:  # a further channel that is always 1
            rows = torch.cat((rows, rows.new_ones(rows.shape[0], 1)), dim=1)
            weight = torch.cat((weight, self.bias[:, None]), dim=1)
        if torch.compiler.is_exporting():  # chunks of a free number of rows have no exported form
            scores = F.linear(rows, weight)
            total = F.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="sum")
            if self.smoothing:  # written out: torch's own is lost on the way to ONNX (torch 2.13)
                even = F.log_softmax(scores, -1).mean(-1).masked_fill(labels == IGNORED, 0.0).sum()
                total = (1 - self.smoothing) * total - self.smoothing * even
            return total / (labels != IGNORED).sum().clamp(min=1).to(total.dtype)
        device = x.device.type
        if device != "meta" and torch.is_autocast_enabled(device):
            rows = rows.to(torch.get_autocast_dtype(device))
        learns = torch.is_grad_enabled()
        compiled = torch.compiler.is_compiling()
        loss: Tensor = vocabulary_loss(rows, weight, labels, self.smoothing, learns, compiled)[0]
        return loss


@torch.library.custom_op("atinuke::vocabulary_loss", mutates_args=())
def vocabulary_loss(
    x: Tensor, weight: Tensor, labels: Tensor, smoothing: float, learns: bool, compiled: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean cross-entropy of `x[rows, d_model] @ weight[vocab_size, d_model].T`, and with `learns` its gradients by
    both, in one pass over chunks of rows.

    Products run in the dtype of `x`; softmax and sums are at least float32. An opaque operator, because torch.compile
    would unroll the loop.
    """
    cross_entropy = _compiled() if compiled else _cross_entropy
    cast = weight.to(x.dtype)
    precise = torch.promote_types(x.dtype, torch.float32)
    kept = labels != IGNORED
    share = kept.to(precise) / kept.sum().clamp(min=1)  # what a row's loss contributes to the mean
    targets = labels.where(kept, 0)
    loss = torch.zeros((), dtype=precise, device=x.device)
    x_gradient = torch.empty_like(x) if learns else x.new_empty(0)
    weight_gradient = torch.zeros_like(weight, dtype=precise) if learns else weight.new_empty(0)
    for first in range(0, x.shape[0], ROWS):
        part = slice(first, first + ROWS)
        # Copies without autograd's marks: a compiled function is specialised on the views and marks of its arguments.
        with torch.inference_mode():
            added, gradient = cross_entropy(x[part] @ cast.t(), targets[part].clone(), share[part].clone(), smoothing)
        loss += added
        if learns:
            torch.mm(gradient, cast, out=x_gradient[part])
            weight_gradient += gradient.t() @ x[part]
    return loss.to(weight.dtype), x_gradient, weight_gradient.to(weight.dtype)


def _cross_entropy(scores: Tensor, targets: Tensor, share: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """The summed loss of these rows, each times its share, and the gradient of that by the scores."""
    precise = scores.to(torch.promote_types(scores.dtype, torch.float32))
    top = precise.amax(-1, keepdim=True)
    powers = (precise - top).exp()
    total = powers.sum(-1, keepdim=True)
    targets, share = targets[:, None], share[:, None]
    wanted = precise.gather(-1, targets)
    hit = torch.arange(scores.shape[-1], device=scores.device) == targets
    aim = torch.where(hit, share, 0.0)
    if smoothing:
        wanted = (1 - smoothing) * wanted + smoothing * precise.mean(-1, keepdim=True)
        aim = (1 - smoothing) * aim + smoothing / scores.shape[-1] * share
    loss = (share * (top + total.log() - wanted)).sum()
    return loss, (powers * (share / total) - aim).to(scores.dtype)


@cache
def _compiled() -> Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]:
    return torch.compile(_cross_entropy, dynamic=True)


@vocabulary_loss.register_fake
def _shapes(
    x: Tensor, weight: Tensor, labels: Tensor, smoothing: float, learns: bool, compiled: bool
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = (torch.empty_like(x), torch.empty_like(weight)) if learns else (x.new_empty(0), weight.new_empty(0))
    return weight.new_empty(()), *gradients


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])


def _backward(ctx: Any, scale: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x_gradient, weight_gradient = ctx.saved_tensors
    return x_gradient * scale.to(x_gradient.dtype), weight_gradient * scale, None, None, None, None


vocabulary_loss.register_autograd(_backward, setup_context=_save)
