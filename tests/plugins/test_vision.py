import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import ViTConfig
from transformers.models.vit.modeling_vit import ViTPatchEmbeddings

from atinuke.plugins.vision import ConvolutionalStem, FlattenGrid, PatchEmbedding


def test_patches_are_transformers() -> None:
    theirs = ViTPatchEmbeddings(ViTConfig(hidden_size=24, image_size=(12, 20), patch_size=4, num_channels=2))
    ours = PatchEmbedding(24, patch=4, channels=2)
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.randn(3, 2, 12, 20)
    torch.testing.assert_close(ours(pixels).output, theirs(pixels), rtol=0, atol=1e-6)


def test_a_patch_is_a_linear_map_of_its_pixels_row_by_row() -> None:
    ours = PatchEmbedding(5, patch=3, channels=2).double()
    pixels = torch.randn(2, 2, 8, 10, dtype=torch.float64)  # two rows and a column of pixels are left over
    found = ours(pixels)
    assert found.grid.shape == (2, 2, 3, 5)
    weight, bias = ours.projection.weight.detach().numpy(), ours.projection.bias.detach().numpy()
    for row in range(2):
        for column in range(3):
            patch = pixels[:, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].numpy()
            expected = np.einsum("bcij,dcij->bd", patch, weight) + bias
            np.testing.assert_allclose(found.grid[:, row, column].detach(), expected, rtol=1e-12, atol=1e-12)
            assert torch.equal(found.output[:, 3 * row + column], found.grid[:, row, column])


def test_vectors_start_with_the_deviation_of_pixels() -> None:
    torch.manual_seed(0)
    output = PatchEmbedding(64, patch=4, channels=1)(torch.randn(8, 1, 32, 32)).output
    assert abs(output.std().item() - 1) < 0.1


@pytest.mark.parametrize("module", [PatchEmbedding(8, patch=2), ConvolutionalStem(8, filters=4)], ids=type)
def test_the_sequence_is_a_view_of_the_grid(module: torch.nn.Module) -> None:
    output, grid = module(torch.randn(2, 3, 9, 12))
    assert output.data_ptr() == grid.data_ptr()
    assert torch.equal(FlattenGrid()(grid), output)


def convolved(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A convolution of 3 by 3 with a margin of zeros, pixel by pixel."""
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    result = np.zeros((len(x), len(weight), height, width))
    for i in range(height):
        for j in range(width):
            result[:, :, i, j] = np.einsum("bcij,dcij->bd", padded[:, :, i : i + 3, j : j + 3], weight)
    return result


def pooled(x: np.ndarray) -> np.ndarray:
    """The maximum over 3 by 3 around every second pixel."""
    height, width = x.shape[2:]
    result = np.zeros((*x.shape[:2], -(-height // 2), -(-width // 2)))
    for i in range(result.shape[2]):
        for j in range(result.shape[3]):
            around = x[:, :, max(0, 2 * i - 1) : 2 * i + 2, max(0, 2 * j - 1) : 2 * j + 2]
            result[:, :, i, j] = around.max((2, 3))
    return result


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 13), (28, 5)])
def test_the_stem_is_its_formula(layers: int, size: tuple[int, int]) -> None:
    stem = ConvolutionalStem(6, layers, filters=4, channels=2).double()
    pixels = torch.randn(2, 2, *size, dtype=torch.float64)
    expected = pixels.numpy()
    for weight in stem.parameters():
        expected = pooled(np.maximum(convolved(expected, weight.detach().numpy()), 0))
    np.testing.assert_allclose(stem(pixels).grid.detach(), expected.transpose(0, 2, 3, 1), rtol=1e-12, atol=1e-12)


def test_flattening_goes_row_by_row() -> None:
    grid = torch.arange(2 * 3 * 4).view(1, 2, 3, 4).float()
    assert torch.equal(FlattenGrid()(grid), F.unfold(grid.permute(0, 3, 1, 2), 1).transpose(1, 2))
