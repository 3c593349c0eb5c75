"""Pictures against pixels that numpy made and, where Pillow's encoder could share a mistake, bytes written by hand."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from atinuke.runtime.picture import read_picture
from tests.pipelines.media import failure

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (5, 7, 3), np.uint8)
GREYS = RANDOM.integers(0, 256, (5, 7), np.uint8)


def png(width: int, height: int, bits: int, kind: int, pixels: bytes, *chunks: bytes) -> bytes:
    """A png file by its specification; `kind` is its colour type, each row of `pixels` begins with a zero."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def encoded(pixels: NDArray[Any] | Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, form, **options)
    return stream.getvalue()


def planes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`[channels, height, width]` of what numpy has as `[height, width, channels]`, or as `[height, width]`."""
    return np.stack([pixels] * 3) if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """ITU-R BT.601."""
    return pixels @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000"])
def test_lossless_formats_give_their_pixels(form: str, tmp_path: Path) -> None:
    data = encoded(COLOURS, form, **({"lossless": True} if form == "WEBP" else {}))
    pixels = read_picture(data)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, planes(COLOURS))
    (tmp_path / "a").write_bytes(data)
    assert np.array_equal(read_picture(tmp_path / "a"), pixels)


def test_jpeg() -> None:
    smooth = np.linspace(0, 255, 16 * 16).reshape(16, 16).astype(np.uint8)
    assert np.abs(read_picture(encoded(smooth, "JPEG", quality=95)).astype(int) - planes(smooth)).max() <= 4


def test_grey_and_colour_become_each_other() -> None:
    assert np.array_equal(read_picture(encoded(GREYS, "PNG")), planes(GREYS))
    assert np.array_equal(read_picture(encoded(GREYS, "PNG"), 1), GREYS[None])
    assert np.abs(read_picture(encoded(COLOURS, "PNG"), 1)[0] - luma(COLOURS)).max() <= 1
    assert read_picture(png(9, 1, 1, 0, b"\0\xaa\x80"), 1).tolist() == [[[255, 0, 255, 0, 255, 0, 255, 0, 255]]]


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = [0, 128, 129, 255, 257, 32_768, 65_000, 65_535]
    expected = [round(value / 257) for value in values]
    rows = b"\0" + struct.pack(">8H", *values)
    assert read_picture(png(8, 1, 16, 0, rows), 1).ravel().tolist() == expected
    assert read_picture(b"P5 8 1 65535\n" + rows[1:], 1).ravel().tolist() == expected
    assert read_picture(encoded(np.array([values], np.uint16), "TIFF"), 1).ravel().tolist() == expected
    assert read_picture(b"P5 2 1 1023\n" + struct.pack(">2H", 512, 1023), 1).ravel().tolist() == [128, 255]
    colour = read_picture(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 257, 32_896, 65_535)))
    assert colour.ravel().tolist() == [1, 128, 255]


def test_what_is_transparent_shows_white() -> None:
    alpha = RANDOM.integers(0, 256, (5, 7, 1), np.uint8)
    expected = COLOURS * (alpha / 255) + 255 * (1 - alpha / 255)
    pixels = read_picture(encoded(np.concatenate([COLOURS, alpha], 2), "PNG"))
    assert np.abs(pixels - expected.transpose(2, 0, 1)).max() <= 1
    assert read_picture(png(2, 1, 8, 4, b"\0\x10\x00\x10\xff"), 1).ravel().tolist() == [255, 16]
    assert read_picture(png(2, 1, 8, 0, b"\0\x03\x04", chunk(b"tRNS", b"\0\x03")), 1).ravel().tolist() == [255, 4]
    sixteen = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 257, 514), chunk(b"tRNS", b"\1\1"))
    assert read_picture(sixteen, 1).ravel().tolist() == [255, 2]


def test_palettes_with_and_without_transparency() -> None:
    palette = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60]))
    assert read_picture(png(2, 1, 8, 3, b"\0\0\1", palette)).tolist() == [[[10, 40]], [[20, 50]], [[30, 60]]]
    clear = png(2, 1, 8, 3, b"\0\0\1", palette, chunk(b"tRNS", b"\0"))
    assert read_picture(clear).tolist() == [[[255, 40]], [[255, 50]], [[255, 60]]]


@pytest.mark.parametrize("form", ["TIFF", "JPEG"])
def test_cmyk(form: str) -> None:
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[..., 0], inks[..., 3] = 255, 51
    pixels = read_picture(encoded(Image.fromarray(inks, "CMYK"), form))
    assert np.abs(pixels[:, 8, 8] - np.array([0, 204, 204])).max() <= 2


TURNED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_the_orientation_of_exif_is_obeyed(orientation: int) -> None:
    """EXIF 2.3, tag 0x0112: where the first row and column of what is stored belong."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = TURNED[orientation]
    assert np.array_equal(read_picture(encoded(COLOURS, "PNG", exif=exif)), planes(turn(COLOURS)))
    wide = GREYS.astype(np.uint16) * 257
    assert np.array_equal(read_picture(encoded(wide, "PNG", exif=exif), 1), turn(GREYS)[None])


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_what_moves_the_first_frame(form: str) -> None:
    frames = [Image.fromarray(np.full((4, 4, 3), shade, np.uint8)) for shade in (200, 100, 0)]
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert (read_picture(data) == 200).all()


def test_size_is_height_and_width() -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)[:, None].repeat(32, 1)
    pixels = read_picture(encoded(ramp, "PNG"), 1, (16, 24))
    assert pixels.shape == (1, 16, 24)
    assert np.abs(pixels[0, 2:-2, 0] - ramp.reshape(16, 4, 32).mean((1, 2))[2:-2]).max() <= 2
    noise = RANDOM.integers(0, 256, (256, 256), np.uint8)
    assert read_picture(encoded(noise, "PNG"), 1, (8, 8)).std() < 20  # antialiased: an average, no samples


GOOD = encoded(RANDOM.integers(0, 256, (64, 64, 3), np.uint8), "PNG")


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


BROKEN = {
    "truncated.png": (half(GOOD), "is truncated"),
    "truncated.jpg": (half(encoded(COLOURS.repeat(9, 0), "JPEG")), "is truncated"),
    "truncated.gif": (encoded(COLOURS.repeat(9, 0), "GIF")[:-50], "is truncated"),
    "truncated.bmp": (half(encoded(COLOURS, "BMP")), "is truncated"),
    "truncated.webp": (half(encoded(COLOURS, "WEBP")), "is a damaged picture"),
    "damaged.png": (GOOD[:60] + bytes(200) + GOOD[260:], "is a damaged picture"),
    "empty.png": (b"", "is empty"),
    "text.png": (b"this is no picture\n" * 20, "is not a picture"),
    "no-pixels.png": (png(0, 1, 8, 0, b"\0"), "is not a picture, or has no pixels"),
    "bomb.png": (png(40_000, 40_000, 8, 0, bytes(1000)), "has too many pixels"),
    "large.png": (png(10_000, 6_000, 8, 0, bytes(1000)), "has too many pixels\n  10,000 × 6,000; at most 50,000,000"),
    "program.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "is not a picture"),
    "wide.tiff": (encoded(GREYS.astype(np.int32), "TIFF"), "has 32-bit pixels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_clear_message(name: str, tmp_path: Path) -> None:
    data, message = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    said = failure(lambda: read_picture(tmp_path / name))
    assert said.startswith(f"{tmp_path / name}  ")
    assert message in said
    assert message in failure(lambda: read_picture(data))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert "a.png  there is no such file" in failure(lambda: read_picture(tmp_path / "a.png"))
    assert "cannot be read\n  Is a directory" in failure(lambda: read_picture(tmp_path))
