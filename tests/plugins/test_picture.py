import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from atinuke.core.component import Component
from atinuke.plugins.picture import Augment, Normalise, Resize
from atinuke.testing import LAWS, run_laws

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.mark.parametrize("settings", [{}, IMAGENET, {"mean": 0.1, "std": [1.0, 2.0, 4.0]}])
def test_bytes_and_floats_are_normalised_alike(settings: dict[str, float | list[float]]) -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(2, 3, 1, 1)
    mean, std = (np.broadcast_to(settings.get(name, 0.5), 3)[:, None, None] for name in ("mean", "std"))
    expected = (pixels.numpy().astype(np.float64) / 255 - mean) / std
    module = Normalise(3, **settings)
    np.testing.assert_allclose(module(pixels), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(module(pixels / 255), expected, rtol=0, atol=1e-6)
    assert torch.equal(module(pixels.long()), module(pixels))


def test_bytes_take_the_dtype_of_the_model() -> None:
    pixels = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert Normalise().to(dtype)(pixels).dtype == dtype


class NormaliseBytes(Normalise):
    """The laws feed floats to a port that takes both; this one takes bytes alone."""

    def forward(
        self, pixel_values: UInt8[Tensor, "batch {self.channels} height width"]
    ) -> Float[Tensor, "batch {self.channels} height width"]:
        return super().forward(pixel_values)


@pytest.mark.parametrize("law", LAWS)
def test_bytes_keep_every_law_too(law: str) -> None:
    record = Component("bytes", f"{__name__}:NormaliseBytes", "", "atinuke.plugins.strategies:normalise")
    (result,) = run_laws(record, laws=[law])
    if result.error is not None:
        raise result.error


def pillow(pixels: Tensor, height: int, width: int) -> np.ndarray:
    """Pillow's bilinear resizing of floats, channel by channel."""
    result = [
        [Image.fromarray(channel.numpy()).resize((width, height), Image.Resampling.BILINEAR) for channel in picture]
        for picture in pixels
    ]
    return np.array([[np.asarray(channel) for channel in picture] for picture in result])


@pytest.mark.parametrize("size", [(3, 4), (8, 9), (17, 5), (40, 33)])
def test_resizing_is_pillows(size: tuple[int, int]) -> None:
    pixels = torch.randn(2, 3, 17, 23)  # Pillow weighs in float64 and rounds to float32
    np.testing.assert_allclose(Resize(*size)(pixels.double()), pillow(pixels, *size), rtol=0, atol=1e-6)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    pixels = torch.randn(2, 3, 17, 23)
    torch.testing.assert_close(Resize(17, 23)(pixels), pixels, rtol=0, atol=1e-6)


# Augmentation


def pictures(count: int, size: tuple[int, int] = (9, 7)) -> Tensor:
    return torch.rand(count, 2, *size) + 1  # no zeros


def test_nothing_is_varied_outside_training() -> None:
    pixels = pictures(3)
    assert torch.equal(Augment(flip=1, shift=4, erase=1).eval()(pixels), pixels)


def test_pictures_are_mirrored_with_the_given_probability() -> None:
    torch.manual_seed(0)
    pixels = pictures(2000)
    found = Augment(flip=0.3, shift=0)(pixels)
    mirrored = (found == pixels.flip(-1)).flatten(1).all(1)
    assert torch.equal(mirrored, ~(found == pixels).flatten(1).all(1))
    assert abs(mirrored.float().mean().item() - 0.3) < 0.04


def test_pictures_are_moved_by_every_distance_alike() -> None:
    torch.manual_seed(0)
    pixels, shift = pictures(2000), 2
    found = Augment(flip=0, shift=shift)(pixels)
    padded = torch.nn.functional.pad(pixels, (shift,) * 4)
    counts = torch.zeros(5, 5)
    for down in range(5):
        for along in range(5):
            crop = padded[:, :, down : down + 9, along : along + 7]
            counts[down, along] = (crop == found).flatten(1).all(1).sum()
    assert counts.sum() == 2000
    assert counts.min() > 45
    assert counts.max() < 120


def test_erased_are_rectangles_of_the_size_and_the_shape_that_the_paper_draws() -> None:
    torch.manual_seed(0)
    found = Augment(flip=0, shift=0, erase=0.5)(pictures(1000, (60, 80)))
    erased = found == 0
    assert torch.equal(erased[:, 0], erased[:, 1])
    hit = erased[:, 0].flatten(1).any(1)
    assert abs(hit.float().mean().item() - 0.5) < 0.06
    heights, widths = (erased[hit, 0].any(axis).sum(1).float() for axis in (2, 1))
    areas = erased[hit, 0].flatten(1).sum(1)
    assert torch.equal(areas.float(), heights * widths), "a rectangle"
    share = areas / (60 * 80)
    assert 0.015 < share.min() < 0.03
    assert 0.3 < share.max() < 0.35
    ratio = heights / widths
    assert 0.25 < ratio.min() < 0.4
    assert 2.5 < ratio.max() < 4
    assert 0.4 < (ratio > 1).float().mean() < 0.6
    anywhere = erased[hit, 0].any(0)
    assert all(edge.any() for edge in (anywhere[0], anywhere[-1], anywhere[:, 0], anywhere[:, -1]))


def test_the_same_seed_varies_alike_and_each_picture_by_itself() -> None:
    module = Augment(flip=0.5, shift=3, erase=0.5)
    pixels = pictures(1).expand(16, -1, -1, -1)
    torch.manual_seed(3)
    first = module(pixels)
    assert len(first.unique(dim=0)) > 8
    torch.manual_seed(3)
    assert torch.equal(module(pixels), first)


def test_training_compiles_whole_at_any_size() -> None:
    module = Augment(flip=0.5, shift=3, erase=0.5)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in ((9, 7), (12, 31)):
        pixels = pictures(5, size)
        torch.manual_seed(1)
        expected = module(pixels)
        torch.manual_seed(1)
        torch.testing.assert_close(compiled(pixels), expected)
