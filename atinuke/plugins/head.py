"""From vectors to answers: scores, numbers, and vectors to compare."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from atinuke.plugins.linear import Linear
from atinuke.plugins.settings import require_positive


class VocabularyHead(Linear):
    """The score of every token of the vocabulary: a linear map whose weight may be tied to text.embedding's. With
    `offset` each token has a learned number that is added to its score (BERT)."""

    def __init__(self, d_model: int, vocab_size: int, offset: bool = False) -> None:
        require_positive(d_model=d_model, vocab_size=vocab_size)
        super().__init__(d_model, vocab_size, bias=offset)
        self.d_model = d_model
        self.vocab_size = vocab_size
        self.offset = offset

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.vocab_size}"]:
        return F.linear(x, self.weight, self.bias)


class ClassificationHead(Linear):
    """The score of every class, for loss.cross_entropy or loss.ctc."""

    def __init__(self, d_model: int, classes: int) -> None:
        require_positive(d_model=d_model, classes=classes)
        super().__init__(d_model, classes)
        self.d_model = d_model
        self.classes = classes

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.classes}"]:
        return F.linear(x, self.weight, self.bias)


class RegressionHead(Linear):
    """One number, for loss.regression."""

    def __init__(self, d_model: int) -> None:
        require_positive(d_model=d_model)
        super().__init__(d_model, 1)
        self.d_model = d_model

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead"]:
        return F.linear(x, self.weight, self.bias).squeeze(-1)


class ProjectionHead(Linear):
    """A vector of length 1 (unless `normalise` is false) in a space that modalities share (CLIP, Radford et al., 2021).
    A zero vector stays zero."""

    def __init__(self, d_model: int, projection_dim: int, normalise: bool = True) -> None:
        require_positive(d_model=d_model, projection_dim=projection_dim)
        super().__init__(d_model, projection_dim, bias=False)
        self.d_model = d_model
        self.projection_dim = projection_dim
        self.normalise = normalise

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.projection_dim}"]:
        projected = F.linear(x, self.weight)
        if not self.normalise:
            return projected
        precise = projected.to(torch.promote_types(x.dtype, torch.float32))
        squares = precise.square().sum(-1, keepdim=True)
        return (precise * torch.rsqrt(squares.masked_fill(squares == 0, 1.0))).to(x.dtype)


class SimilarityHead(nn.Module):
    """How much each of `first` is like each of `second`: their products, of vectors of length 1 the cosines, divided by
    a learned temperature (CLIP, Radford et al., 2021)."""

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        self.temperature = temperature
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(
        self, first: Float[Tensor, "first width"], second: Float[Tensor, "second width"]
    ) -> Float[Tensor, "first second"]:
        precise = torch.promote_types(first.dtype, torch.float32)
        products = first.to(precise) @ second.to(precise).t()
        return (self.log_scale.to(precise).exp() * products).to(first.dtype)
