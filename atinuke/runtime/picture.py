"""Picture files as pixels: png, jpeg, gif, bmp, tiff, webp, ppm and jpeg 2000; needs `atinuke[vision]`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from atinuke.core.errors import AtinukeError, fail
from atinuke.runtime.media import named, opened

if TYPE_CHECKING:
    from PIL.Image import Image

# Only formats that Pillow decodes itself: it hands an EPS file to Ghostscript, which is a program in a picture.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
FIX = "give a png, jpeg, gif, bmp, tiff, webp, ppm or jpeg 2000 file"
BACKGROUND = 255
MOST_PIXELS = 50_000_000
SIXTEEN_BITS = 257  # 65535 / 255


def read_picture(
    source: Path | bytes, channels: Literal[1, 3] = 3, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """The pixels of a file, or of its bytes: uint8 `[channels, height, width]`, 1 channel being grey and 3 being RGB.

    The picture is turned the way its EXIF says, its first frame if it moves. What is transparent shows a white
    background. 16 bits are scaled to 8. `size` (height, width) stretches it (bicubic, antialiased).

    Raises:
        AtinukeError: the file is missing, unreadable, empty, of another format, truncated, without pixels, of more than
            50 million pixels, or its pixels cannot be turned into grey or RGB; or Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise fail("reading pictures needs Pillow", fix="pip install 'atinuke[vision]'") from None
    where = named(source)
    with opened(source) as stream:
        try:
            with Image.open(stream, formats=FORMATS) as image:
                _require_size(image, where)
                scaled = image.format == "PPM"  # its 9 to 16 bits come scaled to 16, in 32-bit pixels
                upright = _flat(ImageOps.exif_transpose(image), scaled, where)
                pixels = upright.convert("L" if channels == 1 else "RGB")
        except AtinukeError:
            raise
        except Image.DecompressionBombError as error:
            raise fail("has too many pixels", str(error), where=where) from None
        except UnidentifiedImageError:
            raise fail("is not a picture, or has no pixels", where=where, fix=FIX) from None
        except Exception as error:  # decoders raise anything at all on a damaged file
            what = "is truncated" if "runcated" in str(error) else "is a damaged picture"
            raise fail(what, str(error), where=where, fix="copy it again") from None
    if size is not None:
        pixels = pixels.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    array = np.array(pixels)
    return np.ascontiguousarray(array[None] if channels == 1 else array.transpose(2, 0, 1))


def _require_size(image: "Image", where: str | None) -> None:
    """Only the header has been read so far."""
    if image.width * image.height > MOST_PIXELS:
        size = f"{image.width:,} × {image.height:,}; at most {MOST_PIXELS:,}"
        raise fail("has too many pixels", size, where=where, fix="scale it down")


def _flat(image: "Image", scaled: bool, where: str | None) -> "Image":
    """The picture with 8 bits and no transparency, in whatever colours."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and scaled):
        wide = np.asarray(image).astype(np.uint32)
        grey = ((wide + SIXTEEN_BITS // 2) // SIXTEEN_BITS).astype(np.uint8)
        if image.has_transparency_data:
            grey[wide == image.info["transparency"]] = BACKGROUND
        return Image.fromarray(grey)
    if image.mode in ("I", "F"):
        raise fail("has 32-bit pixels, whose range is not known", where=where, fix="save it with 8 or 16 bits")
    if image.has_transparency_data:
        flat = Image.new("RGBA", image.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255))
        flat.alpha_composite(image.convert("RGBA"))
        return flat
    return image
