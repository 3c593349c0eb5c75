"""From vectors back to the vocabulary."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from atinuke.plugins.linear import INITIAL_STD, Linear
from atinuke.plugins.settings import require_positive

IGNORED = -100
CHUNKS = 8


class VocabularyHead(Linear):
    """The score of every token of the vocabulary: a linear map whose weight may be tied to text.embedding's."""

    def __init__(self, d_model: int, vocab_size: int) -> None:
        require_positive(d_model=d_model, vocab_size=vocab_size)
        super().__init__(d_model, vocab_size, bias=False)
        self.d_model = d_model
        self.vocab_size = vocab_size

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.vocab_size}"]:
        return F.linear(x, self.weight)


class VocabularyLoss(nn.Module):
    """The mean cross-entropy of head.vocabulary's scores, which are never held whole. Same parameters.

    Labels of -100 do not count; where none counts the loss and its gradients are 0.
    """

    def __init__(self, d_model: int, vocab_size: int) -> None:
        super().__init__()
        require_positive(d_model=d_model, vocab_size=vocab_size)
        self.d_model = d_model
        self.vocab_size = vocab_size
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"], labels: Int[Tensor, "*lead"]) -> Float[Tensor, ""]:
        rows, labels = x.reshape(-1, self.d_model), labels.reshape(-1).long()
        if torch.compiler.is_exporting():  # chunks of a free number of rows have no exported form
            total = F.cross_entropy(F.linear(rows, self.weight), labels, ignore_index=IGNORED, reduction="sum")
            return total / (labels != IGNORED).sum().clamp(min=1).to(total.dtype)
        learns = torch.is_grad_enabled()
        loss: Tensor = ChunkedCrossEntropy.apply(rows, self.weight, labels, learns)  # type: ignore[no-untyped-call]
        return loss


class ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `x[rows, d_model] @ weight[vocab_size, d_model].T` against `labels[rows]`.

    It takes an eighth of the rows at a time and computes the gradients on the way, while the scores are there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, learns: bool) -> Tensor:
        precise = torch.promote_types(x.dtype, torch.float32)
        rows = x.shape[0]
        size = (rows + CHUNKS - 1) // CHUNKS
        padding = size * CHUNKS - rows
        counts = labels != IGNORED
        share = counts / counts.sum().clamp(min=1).to(precise)  # what a row's loss contributes to the mean
        targets = F.pad(labels * counts, (0, padding)).view(CHUNKS, size, 1)
        shares = F.pad(share, (0, padding)).view(CHUNKS, size, 1)
        inputs = F.pad(x, (0, 0, 0, padding)).view(CHUNKS, size, -1)
        total = shares.new_zeros(())
        x_gradients = []
        weight_gradient = torch.zeros_like(weight, dtype=precise) if learns and ctx.needs_input_grad[1] else None
        for chunk, target, weighting in zip(inputs, targets, shares, strict=True):
            scores = F.linear(chunk, weight)
            log_probability = torch.log_softmax(scores, dim=-1, dtype=precise)
            total = total - (log_probability.gather(1, target) * weighting).sum()
            if learns and any(ctx.needs_input_grad):
                gradient = log_probability.exp()
                gradient = gradient.scatter(1, target, gradient.gather(1, target) - 1)
                gradient = (gradient * weighting).to(scores.dtype)
                x_gradients.append(torch.matmul(gradient, weight))
                if weight_gradient is not None:
                    weight_gradient += torch.matmul(gradient.t(), chunk)
        if x_gradients:
            x_gradient = torch.cat(x_gradients)[:rows].to(x.dtype)
            ctx.save_for_backward(x_gradient, None if weight_gradient is None else weight_gradient.to(weight.dtype))
        return total.to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x_gradient, weight_gradient = ctx.saved_tensors
        return x_gradient * scale, None if weight_gradient is None else weight_gradient * scale, None, None
