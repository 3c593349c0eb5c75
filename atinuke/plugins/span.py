"""Spans of a sequence, each given by its first position and the one behind its last. One that is empty, or does not lie
in the sequence, is none: it fills up a batch, and has the vector 0."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from atinuke.plugins.linear import Linear
from atinuke.plugins.settings import require_positive


class SpanVectors(nn.Module):
    """A vector for each span (Lee et al., 2017, section 3): what stands at its first and its last position, what a
    learned attention finds in it (its head), and a learned vector of its length, mapped to `d_span` and through ReLU.

    The map of the four side by side is a sum of four maps, so positions are mapped before spans are made of them. Spans
    of `lengths` positions and more share a vector of length.
    """

    def __init__(self, d_model: int, d_span: int, lengths: int = 32) -> None:
        super().__init__()
        require_positive(d_model=d_model, d_span=d_span, lengths=lengths)
        self.d_model = d_model
        self.d_span = d_span
        self.lengths = lengths
        self.map = Linear(d_model, 3 * d_span, parts={"first": d_span, "last": d_span, "head": d_span})
        self.attention = Linear(d_model, 1, bias=False)
        self.length = nn.Parameter(torch.empty(lengths, d_span))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in (self.map.weight, self.attention.weight, self.length):
            nn.init.xavier_normal_(weight)

    def forward(
        self, x: Float[Tensor, "batch sequence {self.d_model}"], spans: Int[Tensor, "batch spans 2"]
    ) -> Float[Tensor, "batch spans {self.d_span}"]:
        start, stop = spans[..., 0], spans[..., 1]
        there = (start >= 0) & (start < stop) & (stop <= x.shape[1])
        first, last, head = self.map(x).chunk(3, -1)
        places = torch.arange(x.shape[1], device=x.device)
        inside = (places >= start[..., None]) & (places < stop[..., None])
        scores = self.attention(x).transpose(1, 2).to(torch.promote_types(x.dtype, torch.float32))
        weights = scores.masked_fill(~inside, torch.finfo(scores.dtype).min).softmax(-1).to(x.dtype)
        vectors = (
            _at(first, start.where(there, 0))
            + _at(last, (stop - 1).where(there, 0))
            + weights @ head
            + F.embedding((stop - start - 1).clamp(0, self.lengths - 1), self.length)
        )
        return vectors.relu() * there[..., None]


class Best(NamedTuple):
    """The spans that were kept, and what was known of them."""

    output: Float[Tensor, "batch {self.keep} width"]
    scores: Float[Tensor, "batch {self.keep}"]
    spans: Int[Tensor, "batch {self.keep} 2"]


class BestSpans(nn.Module):
    """The `keep` spans with the highest scores, in the order in which they are given; where there are fewer, zeros fill
    up. Scores pass on gradients, the choice does not."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        require_positive(keep=keep)
        self.keep = keep

    def forward(
        self,
        x: Float[Tensor, "batch spans width"],
        scores: Float[Tensor, "batch spans"],
        spans: Int[Tensor, "batch spans 2"],
    ) -> Best:
        count = x.shape[1]
        there = F.pad((spans[..., 0] < spans[..., 1]).int(), (0, self.keep))
        ranked = F.pad(scores, (0, self.keep)).masked_fill(there == 0, torch.finfo(scores.dtype).min)
        best = ranked.topk(self.keep, 1).indices
        places = best.where(there.gather(1, best) > 0, count).sort(1).values
        kept, places = places < count, places.clamp(max=count - 1)
        return Best(
            _at(x, places) * kept[..., None],
            scores.gather(1, places) * kept,
            _at(spans, places) * kept[..., None],
        )


def _at(x: Tensor, places: Tensor) -> Tensor:
    """x `[batch, sequence, width]` at places `[batch, n]`: `[batch, n, width]`."""
    return x.gather(1, places.long()[..., None].expand(-1, -1, x.shape[2]))
