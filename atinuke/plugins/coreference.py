"""Which mention means the same as which before it, and the losses of it (Lee et al., 2017).

Spans come in the order of the text, as `atinuke.plugins.span` has them. Labels are the mentions that are right: first
position, the one behind the last, and the number of the cluster, from 1; what is below 1 fills up.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from atinuke.plugins.dropout import drop
from atinuke.plugins.linear import Linear
from atinuke.plugins.settings import require_positive

DISTANCES = (2, 3, 4, 5, 8, 16, 32, 64)
"""Where a bucket of distances begins, of the nine: 1, 2, 3, 4, 5-7, 8-15, 16-31, 32-63, 64 and more."""

IMPOSSIBLE = -1e4


class AntecedentHead(nn.Module):
    """The score of each span before a span as its antecedent: both scores as mentions, plus what a network of one
    hidden layer says of the two vectors, their product, and how many spans they are apart. None has the score 0.

    Two spans that cannot be a pair have the score -10,000, which every dtype has. The map of vectors side by side is a
    sum of maps, so each span is mapped once, and not once for every other.
    """

    def __init__(self, d_span: int, d_hidden: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        require_positive(d_span=d_span, d_hidden=d_hidden)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, but is {dropout}")
        self.d_span = d_span
        self.d_hidden = d_hidden
        self.dropout = dropout
        self.span = Linear(d_span, 2 * d_hidden, parts={"anaphor": d_hidden, "antecedent": d_hidden})
        self.product = Linear(d_span, d_hidden, bias=False)
        self.distance = nn.Parameter(torch.empty(len(DISTANCES) + 1, d_hidden))
        self.score = Linear(d_hidden, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        # a map of products: from a deviation of 0.02 pairs would have scores of 0.001, and take long to be told apart
        for weight in (self.span.weight, self.product.weight, self.distance, self.score.weight):
            nn.init.xavier_normal_(weight)

    def forward(
        self,
        x: Float[Tensor, "batch kept {self.d_span}"],
        scores: Float[Tensor, "batch kept"],
        spans: Int[Tensor, "batch kept 2"],
    ) -> Float[Tensor, "batch kept kept"]:
        anaphor, antecedent = self.span(x).chunk(2, -1)
        places = torch.arange(x.shape[1], device=x.device)
        apart = places[:, None] - places
        bucket = torch.stack([apart >= start for start in DISTANCES]).sum(0)
        hidden = (
            anaphor[:, :, None]
            + antecedent[:, None]
            + self.product(x[:, :, None] * x[:, None])
            + F.embedding(bucket, self.distance)
        )
        pairs = self.score(drop(hidden.relu(), self.dropout if self.training else 0.0))[..., 0]
        pairs = pairs + scores[:, :, None] + scores[:, None]
        return pairs.masked_fill(~_pairs(spans), IMPOSSIBLE)


class MentionLoss(nn.Module):
    """Minus the logarithm of the probability that scores give to which spans are mentions: the sum over the spans of a
    row, by its number of mentions (of none, as if of one), and the mean over rows."""

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self,
        scores: Float[Tensor, "batch spans"],
        spans: Int[Tensor, "batch spans 2"],
        labels: Int[Tensor, "batch mentions 3"],
    ) -> Float[Tensor, ""]:
        precise = scores.to(torch.promote_types(scores.dtype, torch.float32))
        right = (_clusters(spans, labels) > 0).to(precise.dtype)
        missed = precise.clamp(min=0) - precise * right + (-precise.abs()).exp().log1p()
        return _mean(missed.masked_fill(~_there(spans), 0.0).sum(1), labels).to(scores.dtype)


class AntecedentLoss(nn.Module):
    """Minus the logarithm of the probability of the right clusters, over all ways to give each mention an antecedent
    out of its own; a span that is no mention, or the first of its cluster that is among the spans, has none. The sum
    over the spans of a row, by its number of mentions (of none, as if of one), and the mean over rows."""

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self,
        scores: Float[Tensor, "batch kept kept"],
        spans: Int[Tensor, "batch kept 2"],
        labels: Int[Tensor, "batch mentions 3"],
    ) -> Float[Tensor, ""]:
        precise = scores.to(torch.promote_types(scores.dtype, torch.float32))
        cluster, possible = _clusters(spans, labels), _pairs(spans)
        right = possible & (cluster[:, :, None] == cluster[:, None]) & (cluster > 0)[:, None]
        none = ~right.any(2, keepdim=True)
        least = torch.finfo(precise.dtype).min
        every = F.pad(precise.masked_fill(~possible, least), (1, 0))
        missed = every.logsumexp(2) - every.masked_fill(~torch.cat((none, right), 2), least).logsumexp(2)
        return _mean(missed.masked_fill(~_there(spans), 0.0).sum(1), labels).to(scores.dtype)


def _there(spans: Tensor) -> Tensor:
    return spans[..., 0] < spans[..., 1]


def _pairs(spans: Tensor) -> Tensor:
    """Whether the second span is there and before the first, `[batch, kept, kept]`."""
    there, places = _there(spans), torch.arange(spans.shape[1], device=spans.device)
    return there[:, :, None] & there[:, None] & (places[:, None] > places)


def _clusters(spans: Tensor, labels: Tensor) -> Tensor:
    """The number of the cluster of each span, `[batch, spans]`; 0 for what is no mention."""
    start, stop, number = (labels[:, None, :, part] for part in range(3))
    same = (spans[..., 0, None] == start) & (spans[..., 1, None] == stop)
    return number.clamp(min=0).where(same, 0).amax(2)


def _mean(sums: Tensor, labels: Tensor) -> Tensor:
    counts = (labels[..., 2] > 0).sum(1).clamp(min=1)
    return (sums / counts.to(sums.dtype)).mean()
