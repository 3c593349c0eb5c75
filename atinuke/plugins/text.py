"""Text into vectors."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from atinuke.plugins.linear import INITIAL_STD, Linear
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


class SegmentEmbedding(nn.Module):
    """x plus a learned vector for the segment that a token belongs to, such as the first or the second sentence of a
    pair (Devlin et al., 2019), from a normal distribution of deviation 0.02.

    Raises IndexError for a segment outside 0..segments-1.
    """

    def __init__(self, d_model: int, segments: int = 2) -> None:
        super().__init__()
        require_positive(d_model=d_model, segments=segments)
        self.d_model = d_model
        self.segments = segments
        self.weight = nn.Parameter(torch.empty(segments, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def forward(
        self, x: Float[Tensor, "*lead {self.d_model}"], segment_ids: Int[Tensor, "*lead"]
    ) -> Float[Tensor, "*lead {self.d_model}"]:
        return x + F.embedding(segment_ids, self.weight)


class BytePatches(NamedTuple):
    """`mask` is true where any byte of a patch counts."""

    output: Float[Tensor, "batch (sequence+{self.patch}-1)//{self.patch} {self.d_model}"]
    mask: Bool[Tensor, "batch (sequence+{self.patch}-1)//{self.patch}"]


class ByteEmbedding(nn.Module):
    """Bytes of UTF-8 instead of tokens: 0 to specials-1 are special tokens and byte b is specials + b, by default as in
    ByT5 (Xue et al., 2022: 0 pads, 1 ends a text, 2 is unknown).

    Bytes are four to five times as many as tokens. `patch` makes one vector of so many bytes: theirs side by side,
    mapped linearly to d_model (Yu et al., 2023); the last patch may be a part, filled up with zeros. What `mask` hides
    counts as such filling. Raises IndexError for a number outside 0..255+specials.
    """

    def __init__(self, d_model: int, patch: int = 1, specials: int = 3) -> None:
        super().__init__()
        require_positive(d_model=d_model, patch=patch)
        if specials < 0:
            raise ValueError(f"specials must be at least 0, but is {specials}")
        self.d_model = d_model
        self.patch = patch
        self.specials = specials
        self.weight = nn.Parameter(torch.empty(256 + specials, d_model))
        self.join = Linear(patch * d_model, d_model) if patch > 1 else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def forward(
        self, input_ids: Int[Tensor, "batch sequence"], mask: Bool[Tensor, "batch sequence"] | None = None
    ) -> BytePatches:
        batch, length = input_ids.shape
        patches = (length + self.patch - 1) // self.patch
        filling = (0, patches * self.patch - length)
        # Numbers are filled up and not vectors, and `counts` is not all ones filled up: torch.export would refuse the
        # texts that are a single patch.
        ids = F.pad(input_ids, filling).view(batch, patches, self.patch)
        if mask is None:
            place = torch.arange(patches * self.patch, device=ids.device)
            counts = (place < length).view(patches, self.patch).expand_as(ids)
        else:
            counts = F.pad(mask, filling).view(batch, patches, self.patch)
        vectors = F.embedding(ids, self.weight) * counts[..., None]
        return BytePatches(self.join(vectors.flatten(2)), counts.any(-1))
