"""From vectors back to the vocabulary."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from atinuke.plugins.linear import Linear
from atinuke.plugins.settings import require_positive


class VocabularyHead(Linear):
    """The score of every token of the vocabulary: a linear map whose weight may be tied to text.embedding's."""

    def __init__(self, d_model: int, vocab_size: int) -> None:
        require_positive(d_model=d_model, vocab_size=vocab_size)
        super().__init__(d_model, vocab_size, bias=False)
        self.d_model = d_model
        self.vocab_size = vocab_size

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.vocab_size}"]:
        return F.linear(x, self.weight)
