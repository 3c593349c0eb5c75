"""Text embedding with a stride, and what to train it with."""

from collections.abc import Iterable

from jaxtyping import Float, Int
from torch import Tensor, nn

from atinuke import Choice, Component, hookimpl


class StridedEmbedding(nn.Module):
    """One vector for every `stride` tokens: their embeddings, joined by a convolution that never overlaps.

    Tokens after the last whole group are left out.
    """

    def __init__(self, vocab_size: int, d_model: int, stride: int = 4) -> None:
        super().__init__()
        if stride < 1:
            raise ValueError(f"stride must be at least 1, but is {stride}")
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.stride = stride
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.join = nn.Conv1d(d_model, d_model, kernel_size=stride, stride=stride)

    def forward(
        self, input_ids: Int[Tensor, "batch sequence"]
    ) -> Float[Tensor, "batch sequence//{self.stride} {self.d_model}"]:
        embedded = self.embedding(input_ids)
        joined: Tensor = self.join(embedded.transpose(1, 2))
        return joined.transpose(1, 2)


@hookimpl
def atinuke_components() -> Iterable[Component]:
    yield Component("text.embedding", "atinuke_strided:StridedEmbedding", "One vector for every `stride` tokens")


@hookimpl
def atinuke_objectives() -> Iterable[Choice]:
    yield Choice("agreement", "atinuke_strided_training:Agreement", "Two outputs that say the same")


@hookimpl
def atinuke_sources() -> Iterable[Choice]:
    yield Choice("counting", "atinuke_strided_training:Counting", "Numbers as rows of strokes")


@hookimpl
def atinuke_tasks() -> Iterable[Choice]:
    yield Choice("lengths", "atinuke_strided_task:Lengths", "How many words has a text?")
