import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import ViTConfig
from transformers.models.vit.modeling_vit import ViTEmbeddings
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from atinuke.plugins.position2d import GridLearnedPosition, GridSinusoidalPosition


def added(module: torch.nn.Module, rows: int, columns: int) -> torch.Tensor:
    x = torch.randn(2, rows, columns, module.d_model, dtype=next(module.parameters(), torch.zeros(1).double()).dtype)
    difference = (module(x) - x).detach()
    torch.testing.assert_close(difference[0], difference[1])
    return difference[0]


@pytest.mark.parametrize("base", [10000.0, 50.0])
def test_sinusoids_are_the_formula(base: float) -> None:
    expected = np.zeros((6, 9, 12))
    for row in range(6):
        for column in range(9):
            for k in range(3):
                frequency = base ** (-k / 3)
                angles = (row * frequency, row * frequency, column * frequency, column * frequency)
                for part, (angle, wave) in enumerate(zip(angles, (math.sin, math.cos) * 2, strict=True)):
                    expected[row, column, 3 * part + k] = wave(angle)
    np.testing.assert_allclose(added(GridSinusoidalPosition(12, base), 6, 9), expected, rtol=1e-10, atol=1e-10)


def test_sinusoids_are_transformers() -> None:
    theirs = build_2d_sinusoidal_position_embedding(14, 11, 32, dtype=torch.float64)
    found = added(GridSinusoidalPosition(32), 14, 11)
    torch.testing.assert_close(found.flatten(0, 1), theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_far_places_apart(dtype: torch.dtype) -> None:
    module, x = GridSinusoidalPosition(8), torch.zeros(1, 2000, 3, 8)
    far = copy.deepcopy(module).to(dtype)(x.to(dtype)).float()
    torch.testing.assert_close(far, module(x), rtol=0, atol=torch.finfo(dtype).eps)


def test_a_learned_grid_of_its_own_size_is_added_as_it_is() -> None:
    module = GridLearnedPosition(8, 5, 7)
    torch.testing.assert_close(added(module, 5, 7), module.weight.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(5, 7), (10, 14), (3, 11), (1, 1)])
def test_a_learned_grid_is_interpolated_as_torch_does(size: tuple[int, int]) -> None:
    module = GridLearnedPosition(8, 5, 7).double()
    grid = module.weight.detach().permute(2, 0, 1)[None]
    expected = F.interpolate(grid, size, mode="bicubic", align_corners=False)[0].permute(1, 2, 0)
    torch.testing.assert_close(added(module, *size), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 16), (28, 20), (8, 40)])
def test_a_learned_grid_is_interpolated_as_transformers_does(size: tuple[int, int]) -> None:
    theirs = ViTEmbeddings(ViTConfig(hidden_size=8, image_size=16, patch_size=4)).eval()
    height, width = size
    with torch.no_grad():
        expected = theirs.interpolate_pos_encoding(torch.zeros(1, height * width // 16 + 1, 8), height, width)[0, 1:]
    module = GridLearnedPosition(8, 4, 4)
    module.weight = torch.nn.Parameter(theirs.position_embeddings[0, 1:].detach().view(4, 4, 8))
    torch.testing.assert_close(added(module, height // 4, width // 4).flatten(0, 1), expected, rtol=0, atol=1e-6)
