"""A file beside the labels, or the bytes of one out of a table: opened, or refused in one clear sentence."""

import io
from pathlib import Path
from typing import BinaryIO

from atinuke.core.errors import fail


def opened(source: Path | bytes) -> BinaryIO:
    """A stream of at least one byte, to be closed by the caller.

    Raises:
        AtinukeError: there is no such file, it cannot be read, or it is empty.
    """
    if isinstance(source, bytes):
        stream: BinaryIO = io.BytesIO(source)
    else:
        try:
            stream = source.open("rb")
        except FileNotFoundError:
            raise fail("there is no such file", where=str(source)) from None
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
            raise fail("cannot be read", getattr(error, "strerror", None) or str(error), where=named(source)) from None
    if not stream.read(1):
        stream.close()
        raise fail("is empty", "0 bytes", where=named(source))
    stream.seek(0)
    return stream


def named(source: Path | bytes) -> str | None:
    """What a file is called in an error; bytes have no name, so that whoever has them says where they come from."""
    return str(source) if isinstance(source, Path) else None
