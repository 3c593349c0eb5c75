"""Where a token stands: encodings that are added to it, rotations of queries and keys, and slopes for attention.

Angles are computed when they are needed, in float32 (float64 for float64 models), and cast only as sine and cosine: a
buffer of frequencies would lose them in `.half()`.
"""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from atinuke.plugins.linear import INITIAL_STD
from atinuke.plugins.settings import require_positive


def wave_angles(x: Tensor, position: Tensor | None, width: int, log_base: float | Tensor) -> Tensor:
    """position * base**(-2k/width) for the pair of channels k: `[sequence, pairs]`, or `[batch, sequence, pairs]` where
    `position[batch]` says where each row of `x[batch, sequence, ...]` starts. An odd width has a last half pair."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    places = torch.arange(x.shape[1], device=x.device)
    if position is not None:
        places = position[:, None] + places
    exponent = torch.arange(0, width, 2, dtype=dtype, device=x.device) / width
    return places.to(dtype)[..., None] * torch.exp(-log_base * exponent)


def interleave(angles: Tensor, width: int) -> Tensor:
    """Sines on the even channels and cosines on the odd ones."""
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., :width]


class SinusoidalPosition(nn.Module):
    """x + PE: PE[t, 2k] = sin(t / base**(2k/d_model)) and PE[t, 2k+1] = cos of the same (Vaswani et al., 2017)."""

    def __init__(self, d_model: int, base: float = 10000.0) -> None:
        super().__init__()
        require_positive(d_model=d_model, base=base)
        self.d_model = d_model
        self.base = base

    def forward(
        self, x: Float[Tensor, "batch sequence {self.d_model}"]
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        return self._add(x, None)

    def step(self, x: Float[Tensor, "batch sequence {self.d_model}"], position: Int[Tensor, "batch"]) -> Tensor:
        return self._add(x, position)

    def _add(self, x: Tensor, position: Tensor | None) -> Tensor:
        angles = wave_angles(x, position, self.d_model, math.log(self.base))
        return x + interleave(angles, self.d_model).to(x.dtype)


class LayerwisePosition(nn.Module):
    """P_l of Atinuke (arXiv:2401.16736): x + PE_l, a sinusoidal encoding of each layer's own. The paper does not define
    it; this definition is ours, and each setting at its neutral value leaves the encoding of Vaswani et al. (2017):

        PE_l[t, 2k] = gain_l * sin(t / base_l**(2k/d_model) + 2 pi turns l/layers), PE_l[t, 2k+1] = gain_l * cos(same)
        base_l = base * growth**(l/layers)

    `turns` (neutral 0) turns the phase that many times over the layers; `growth` (neutral 1) lengthens the waves with
    depth; `gain` (neutral false) learns gain_l, which starts at 1.
    """

    layer: Tensor

    def __init__(
        self,
        d_model: int,
        layer: int,
        layers: int,
        turns: float = 1.0,
        growth: float = 1.0,
        gain: bool = False,
        base: float = 10000.0,
    ) -> None:
        super().__init__()
        require_positive(d_model=d_model, layers=layers, growth=growth, base=base)
        if not 0 <= layer < layers:
            raise ValueError(f"layer must be 0 to layers-1 = {layers - 1}, but is {layer}")
        self.d_model = d_model
        self.layers = layers
        self.turns = turns
        self.growth = growth
        self.gain = gain
        self.base = base
        self.register_buffer("layer", torch.tensor(layer))  # a Python number would compile every layer anew
        if gain:
            self.amplitude = nn.Parameter(torch.ones(1))

    def forward(
        self, x: Float[Tensor, "batch sequence {self.d_model}"]
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        return self._add(x, None)

    def step(self, x: Float[Tensor, "batch sequence {self.d_model}"], position: Int[Tensor, "batch"]) -> Tensor:
        return self._add(x, position)

    def _add(self, x: Tensor, position: Tensor | None) -> Tensor:
        depth = self.layer.to(torch.promote_types(x.dtype, torch.float32)) / self.layers
        angles = wave_angles(x, position, self.d_model, math.log(self.base) + depth * math.log(self.growth))
        encoding = interleave(angles + depth * (2 * math.pi * self.turns), self.d_model).to(x.dtype)
        return x + (encoding * self.amplitude if self.gain else encoding)


class PositionTable(nn.Module):
    """A learned vector for each of `length` positions, from a normal distribution of deviation 0.02 (as GPT-2), behind
    `offset` others."""

    def __init__(self, d_model: int, length: int, offset: int = 0) -> None:
        super().__init__()
        require_positive(d_model=d_model, length=length)
        if offset < 0:
            raise ValueError(f"offset must be at least 0, but is {offset}")
        self.d_model = d_model
        self.length = length
        self.offset = offset
        self.weight = nn.Parameter(torch.empty(offset + length, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)


class LearnedPosition(PositionTable):
    """x plus a learned vector for each of the first `length` positions, from a normal distribution of deviation 0.02
    (as GPT-2). `offset` rows of the table in front of these are never read (OPT). Raises IndexError for a longer text.
    """

    limits: ClassVar[dict[str, str]] = {"sequence": "length"}

    def forward(
        self, x: Float[Tensor, "batch sequence {self.d_model}"]
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        return x + F.embedding(self._places(x), self.weight)

    def step(self, x: Float[Tensor, "batch sequence {self.d_model}"], position: Int[Tensor, "batch"]) -> Tensor:
        return x + F.embedding(position[:, None] + self._places(x), self.weight)

    def _places(self, x: Tensor) -> Tensor:
        return torch.arange(self.offset, self.offset + x.shape[1], device=x.device)


class PositionIds(PositionTable):
    """x plus a learned vector for the position that each token is said to have, for instance where several texts are
    packed into one row and each counts from 0; otherwise as position.learned.

    Raises IndexError for a position outside 0..length-1.
    """

    def __init__(self, d_model: int, length: int) -> None:
        super().__init__(d_model, length)

    def forward(
        self, x: Float[Tensor, "*lead {self.d_model}"], position_ids: Int[Tensor, "*lead"]
    ) -> Float[Tensor, "*lead {self.d_model}"]:
        return x + F.embedding(position_ids, self.weight)


class CountedPosition(nn.Module):
    """The position of each token among those that are no padding, for position.ids: the first has `padding`+1, and the
    token `padding` itself has `padding` (RoBERTa, Liu et al., 2019). So padding may stand on either side."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        if padding < 0:
            raise ValueError(f"padding must be at least 0, but is {padding}")
        self.padding = padding

    def forward(self, input_ids: Int[Tensor, "batch sequence"]) -> Int[Tensor, "batch sequence"]:
        counts = (input_ids != self.padding).long()
        return counts.cumsum(1) * counts + self.padding


class RotaryPosition(nn.Module):
    """The rotation of each position, for attention.self (Su et al., 2021): the cosines of t * base**(-2k/head_dim) for
    k = 0 .. head_dim/2 - 1, then their sines. Of `x` only batch, sequence, dtype and device are read.

    It gives cosines and sines, not angles, because bfloat16 knows an angle of 1000 only to within 2.

    `factor` stretches positions over a longer text (Chen et al., 2023). With `stretch: long` only waves that turn less
    than `slow` times in `length` positions are stretched in full, and those that turn more than `fast` times are not
    (Llama 3.1, Dubey et al., 2024).
    """

    def __init__(
        self,
        head_dim: int,
        base: float = 10000.0,
        factor: float = 1.0,
        stretch: Literal["all", "long"] = "all",
        slow: float = 1.0,
        fast: float = 4.0,
        length: int = 8192,
    ) -> None:
        super().__init__()
        require_positive(head_dim=head_dim, base=base, factor=factor, slow=slow, length=length)
        if head_dim % 2:
            raise ValueError(f"head_dim {head_dim} is odd: channels are turned in pairs")
        if fast <= slow:
            raise ValueError(f"fast {fast} must be greater than slow {slow}")
        self.head_dim = head_dim
        self.base = base
        self.factor = factor
        self.stretch = stretch
        self.slow = slow
        self.fast = fast
        self.length = length

    def forward(self, x: Float[Tensor, "batch sequence width"]) -> Float[Tensor, "batch sequence {self.head_dim}"]:
        return self._rotation(x, None).expand(x.shape[0], -1, -1)

    def step(self, x: Float[Tensor, "batch sequence width"], position: Int[Tensor, "batch"]) -> Tensor:
        return self._rotation(x, position)

    def _rotation(self, x: Tensor, position: Tensor | None) -> Tensor:
        angles = wave_angles(x, position, self.head_dim, math.log(self.base))
        if self.stretch == "long":
            exponent = torch.arange(0, self.head_dim, 2, dtype=angles.dtype, device=x.device) / self.head_dim
            turns = self.length / (2 * math.pi) * torch.exp(-math.log(self.base) * exponent)
            kept = ((turns - self.slow) / (self.fast - self.slow)).clamp(0, 1)
            angles = angles * (kept + (1 - kept) / self.factor)
        elif self.factor != 1:
            angles = angles / self.factor
        return torch.cat((angles.cos(), angles.sin()), dim=-1).to(x.dtype)


class AlibiPosition(nn.Module):
    """The slope of each head, for attention.self, which takes slope * |i-j| from the score of query i and key j (Press
    et al., 2022): 2**(-8/heads), 2**(-16/heads) ... Where heads is no power of two: the slopes of the power below and
    then every other slope of the power above, as in the authors' code."""

    exponent: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        require_positive(heads=heads)
        self.heads = heads
        below = 2 ** (heads.bit_length() - 1)
        halves = 2 * torch.arange(heads - below) + 1
        exponents = torch.cat((8 * torch.arange(1, below + 1) / below, 4 * halves / below))
        self.register_buffer("exponent", exponents)  # exact in every dtype, which the slopes are not

    def forward(self) -> Float[Tensor, "{self.heads}"]:
        return torch.exp2(-self.exponent)
