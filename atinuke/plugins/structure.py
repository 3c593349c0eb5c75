"""Parts that only join, drop or pass on what they are given."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Add(nn.Module):
    """The sum of any number of wires of one shape: the residual connection."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, *terms: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total


class Concat(nn.Module):
    """Two texts a row, one after the other: joined along the axis behind `batch`."""

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self, first: Float[Tensor, "batch first *rest"], second: Float[Tensor, "batch second *rest"]
    ) -> Float[Tensor, "batch first+second *rest"]:
        return torch.cat((first, second), dim=1)


class Affine(nn.Module):
    """x * scale + shift, with numbers that are not learned: vectors before a tied head (T5), or features less their
    mean and by their deviation (AST)."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.scale = scale
        self.shift = shift

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x * self.scale + self.shift


class Identity(nn.Module):
    """Passes its input on: what to swap in to take a component out."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x


class Mean(nn.Module):
    """The mean of all values, for instance of what the layers of a repeated block give beside their output."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
        return x.mean()
