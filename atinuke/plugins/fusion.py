"""Several modalities into one. A modality that is missing is hidden by its mask and never counts as zeros."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from atinuke.plugins.linear import INITIAL_STD, Linear
from atinuke.plugins.settings import require_positive


class ModalityTag(nn.Module):
    """Adds one learned vector to every position, by which what follows tells this modality from others."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        require_positive(d_model=d_model)
        self.d_model = d_model
        self.weight = nn.Parameter(torch.empty(d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return x + self.weight


class Presence(nn.Module):
    """The mask of a sequence that a row has or lacks as a whole, such as a picture; without one, every row has it."""

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self, x: Float[Tensor, "batch sequence width"], mask: Bool[Tensor, "batch"] | None = None
    ) -> Bool[Tensor, "batch sequence"]:
        return _there(x, mask, 1)[:, None].expand(x.shape[:2])


class Joined(NamedTuple):
    """Two sequences as one, and which of its positions count."""

    output: Float[Tensor, "batch first+second width"]
    mask: Bool[Tensor, "batch first+second"]


class ConcatFusion(nn.Module):
    """Two sequences a row, one after the other, with their masks; a third is joined to the result. A sequence without a
    mask counts throughout."""

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self,
        first: Float[Tensor, "batch first width"],
        second: Float[Tensor, "batch second width"],
        first_mask: Bool[Tensor, "batch first"] | None = None,
        second_mask: Bool[Tensor, "batch second"] | None = None,
    ) -> Joined:
        masks = (_there(first, first_mask, 2), _there(second, second_mask, 2))
        return Joined(torch.cat((first, second), dim=1), torch.cat(masks, dim=1))


class Gated(NamedTuple):
    """A mixture of two vectors, and where there was at least one of them."""

    output: Float[Tensor, "*lead {self.d_model}"]
    mask: Bool[Tensor, "*lead"]


class GateFusion(nn.Module):
    """A mixture of two vectors, channel by channel, in shares that a learned gate gives: the gated unit of Arevalo et
    al. (2017) without its hidden layer. Where one is missing the other passes; where both are, the output is 0."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        require_positive(d_model=d_model)
        self.d_model = d_model
        self.gate = Linear(2 * d_model, d_model)

    def forward(
        self,
        first: Float[Tensor, "*lead {self.d_model}"],
        second: Float[Tensor, "*lead {self.d_model}"],
        first_mask: Bool[Tensor, "*lead"] | None = None,
        second_mask: Bool[Tensor, "*lead"] | None = None,
    ) -> Gated:
        lead = first.dim() - 1
        has_first, has_second = _there(first, first_mask, lead), _there(second, second_mask, lead)
        share = torch.sigmoid(self.gate(torch.cat((first, second), dim=-1)))
        of_first = torch.where(has_second[..., None], share, 1.0) * has_first[..., None]
        of_second = torch.where(has_first[..., None], 1 - share, 1.0) * has_second[..., None]
        return Gated(of_first * first + of_second * second, has_first | has_second)


class Voted(NamedTuple):
    """The mean of what is there, and whether anything is."""

    output: Float[Tensor, "batch *rest"]
    mask: Bool[Tensor, "batch"]


class LateFusion(nn.Module):
    """The weighted mean of the scores (or vectors) that two or three modalities gave by themselves, with learned
    weights. Those that a row's masks call absent do not count, and the others' weights are scaled to sum to 1; where
    all are absent the output is 0. `third_mask` belongs to `third`."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))  # logarithms

    def forward(
        self,
        first: Float[Tensor, "batch *rest"],
        second: Float[Tensor, "batch *rest"],
        third: Float[Tensor, "batch *rest"] | None = None,
        first_mask: Bool[Tensor, "batch"] | None = None,
        second_mask: Bool[Tensor, "batch"] | None = None,
        third_mask: Bool[Tensor, "batch"] | None = None,
    ) -> Voted:
        terms = ((first, first_mask), (second, second_mask), (third, third_mask))
        given = [(term, _there(term, mask, 1)) for term, mask in terms if term is not None]
        there = torch.stack([mask for _, mask in given], dim=1)
        some = there.any(1)
        weight = self.weight[: len(given)].expand(there.shape)
        share = torch.softmax(weight.masked_fill(~there & some[:, None], float("-inf")), dim=1) * some[:, None]
        values = torch.stack([term for term, _ in given], dim=1)
        return Voted((share[(...,) + (None,) * (first.dim() - 1)] * values).sum(1), some)


class Kept(NamedTuple):
    """The masks of two modalities, of which a row may have lost one."""

    first_mask: Bool[Tensor, "batch *first"]
    second_mask: Bool[Tensor, "batch *second"]


class ModalityDropout(nn.Module):
    """Hides, while training, one of two modalities of a row with probability `rate`, the first as often as the second
    (ModDrop, Neverova et al., 2016), so that the model learns to do without. A row never loses the only modality that
    it has. The masks are of positions or, one a row, of presence."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must be from 0 to 1, but is {rate}")
        self.rate = rate

    def forward(self, first_mask: Bool[Tensor, "batch *first"], second_mask: Bool[Tensor, "batch *second"]) -> Kept:
        if not self.training:
            return Kept(first_mask, second_mask)
        chance = torch.rand(first_mask.shape[0], device=first_mask.device)
        loses_first = (chance < self.rate / 2) & _any(second_mask)
        loses_second = (chance >= 1 - self.rate / 2) & _any(first_mask)
        return Kept(_cleared(first_mask, loses_first), _cleared(second_mask, loses_second))


def _there(x: Tensor, mask: Tensor | None, axes: int) -> Tensor:
    """A mask over the first axes of `x`: where there is none, everything counts."""
    return x.new_ones(x.shape[:axes], dtype=torch.bool) if mask is None else mask


def _any(mask: Tensor) -> Tensor:
    """Whether a row has anything."""
    return mask.reshape(mask.shape[0], -1).any(1)


def _cleared(mask: Tensor, rows: Tensor) -> Tensor:
    return mask & ~rows.view(-1, *[1] * (mask.dim() - 1))
