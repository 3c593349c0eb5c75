"""Text into vectors."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from atinuke.plugins.linear import INITIAL_STD
from atinuke.plugins.settings import require_positive


class TextEmbedding(nn.Module):
    """A learned vector for every token of the vocabulary, from a normal distribution of deviation 0.02 (as GPT-2).

    `scale` multiplies it: sqrt(d_model) where sinusoids of amplitude 1 are added to it (Vaswani et al., 2017, 3.4).
    Raises IndexError for a token outside 0..vocab_size-1.
    """

    def __init__(self, vocab_size: int, d_model: int, scale: float = 1.0) -> None:
        super().__init__()
        require_positive(vocab_size=vocab_size, d_model=d_model, scale=scale)
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def forward(self, input_ids: Int[Tensor, "*lead"]) -> Float[Tensor, "*lead {self.d_model}"]:
        vectors = F.embedding(input_ids, self.weight)
        return vectors if self.scale == 1 else vectors * self.scale
