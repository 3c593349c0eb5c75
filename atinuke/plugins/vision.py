"""Pictures into sequences of vectors.

An embedder gives the vectors twice, as views of the same memory: `output`, one after another, row by row, for whatever
reads a sequence; and `grid`, with axes of rows and columns, for positions in two dimensions, behind which flatten.grid
makes a sequence of it.
"""

from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from atinuke.plugins.settings import require_positive


class Patches(NamedTuple):
    output: Float[Tensor, "batch (height//{self.patch})*(width//{self.patch}) {self.d_model}"]
    grid: Float[Tensor, "batch height//{self.patch} width//{self.patch} {self.d_model}"]


class PatchEmbedding(nn.Module):
    """Cuts a picture into squares of `patch` pixels and maps each to `d_model` linearly (Dosovitskiy et al., 2021).

    What is left over at the right and at the bottom, where a side is no multiple of `patch`, is not seen. Weights start
    from a normal distribution of deviation 1/sqrt(pixels of a patch), so that vectors have the deviation of pixels.
    """

    def __init__(self, d_model: int, patch: int = 16, channels: int = 3, bias: bool = True) -> None:
        super().__init__()
        require_positive(d_model=d_model, patch=patch, channels=channels)
        self.d_model = d_model
        self.patch = patch
        self.channels = channels
        self.bias = bias
        self.projection = nn.Conv2d(channels, d_model, patch, stride=patch, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.projection.weight, std=(self.channels * self.patch**2) ** -0.5)
        if self.projection.bias is not None:
            nn.init.zeros_(self.projection.bias)

    def forward(self, pixel_values: Float[Tensor, "batch {self.channels} height width"]) -> Patches:
        grid = self.projection(pixel_values).permute(0, 2, 3, 1)
        return Patches(grid.flatten(1, 2), grid)


class Cells(NamedTuple):
    output: Float[
        Tensor,
        "batch ((height+2**{self.layers}-1)//2**{self.layers})*((width+2**{self.layers}-1)//2**{self.layers})"
        " {self.d_model}",
    ]
    grid: Float[
        Tensor,
        "batch (height+2**{self.layers}-1)//2**{self.layers} (width+2**{self.layers}-1)//2**{self.layers}"
        " {self.d_model}",
    ]


class ConvolutionalStem(nn.Module):
    """`layers` times a convolution of 3 by 3, ReLU, and the maximum over 3 by 3 at every second pixel: the tokenizer of
    the Compact Convolutional Transformer (Hassani et al., 2021), for few or small pictures. Each layer halves a side
    and rounds up, so that nothing is left over; all but the last have `filters` channels.

    Weights start as the authors' do (He et al., 2015).
    """

    def __init__(self, d_model: int, layers: int = 2, filters: int = 64, channels: int = 3) -> None:
        super().__init__()
        require_positive(d_model=d_model, layers=layers, filters=filters, channels=channels)
        self.d_model = d_model
        self.layers = layers
        self.filters = filters
        self.channels = channels
        widths = [channels, *[filters] * (layers - 1), d_model]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False) for before, after in pairwise(widths)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in self.convolutions.parameters():
            nn.init.kaiming_normal_(weight)

    def forward(self, pixel_values: Float[Tensor, "batch {self.channels} height width"]) -> Cells:
        x = pixel_values
        for convolution in self.convolutions:
            x = F.max_pool2d(F.relu(convolution(x)), 3, stride=2, padding=1)
        grid = x.permute(0, 2, 3, 1)
        return Cells(grid.flatten(1, 2), grid)


class FlattenGrid(nn.Module):
    """The vectors of a grid one after another, row by row."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "batch rows columns width"]) -> Float[Tensor, "batch rows*columns width"]:
        return x.flatten(1, 2)
