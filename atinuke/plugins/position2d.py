"""Where a vector stands on a grid of rows and columns: encodings that are added to it."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from atinuke.plugins.linear import INITIAL_STD
from atinuke.plugins.position import wave_angles
from atinuke.plugins.settings import require_positive


class GridSinusoidalPosition(nn.Module):
    """x + PE. With q = d_model/4 and w_k = base**(-k/q), the channels of PE[r, c] are, q of each: sin(r w_k),
    cos(r w_k), sin(c w_k), cos(c w_k), in the order of transformers' ViTMAE (after He et al., 2022)."""

    def __init__(self, d_model: int, base: float = 10000.0) -> None:
        super().__init__()
        require_positive(d_model=d_model, base=base)
        if d_model % 4:
            raise ValueError(f"d_model {d_model} is not a multiple of 4: a sine and a cosine for rows and for columns")
        self.d_model = d_model
        self.base = base

    def forward(
        self, x: Float[Tensor, "batch rows columns {self.d_model}"]
    ) -> Float[Tensor, "batch rows columns {self.d_model}"]:
        rows, columns = self._waves(x)[:, None], self._waves(x.transpose(1, 2))
        size = (*x.shape[1:3], self.d_model // 2)
        return x + torch.cat((rows.expand(size), columns.expand(size)), dim=-1).to(x.dtype)

    def _waves(self, x: Tensor) -> Tensor:
        """Sines and then cosines of the places along axis 1: `[places, d_model/2]`."""
        angles = wave_angles(x, None, self.d_model // 2, math.log(self.base))
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class GridLearnedPosition(nn.Module):
    """x plus a learned vector for each place of a grid of `rows` by `columns`, from a normal distribution of deviation
    0.02. A grid of another size gets them interpolated bicubically, as ViTs are fine-tuned at other resolutions
    (Dosovitskiy et al., 2021, 3.2)."""

    def __init__(self, d_model: int, rows: int, columns: int) -> None:
        super().__init__()
        require_positive(d_model=d_model, rows=rows, columns=columns)
        self.d_model = d_model
        self.rows = rows
        self.columns = columns
        self.weight = nn.Parameter(torch.empty(rows, columns, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def forward(
        self, x: Float[Tensor, "batch rows columns {self.d_model}"]
    ) -> Float[Tensor, "batch rows columns {self.d_model}"]:
        # Also where the size is its own, to which interpolation is the identity: a branch would tie an exported
        # program to that size.
        return x + F.interpolate(self.weight.permute(2, 0, 1)[None], x.shape[1:3], mode="bicubic").permute(0, 2, 3, 1)
