"""Files are written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from atinuke.core.errors import fail


@contextmanager
def replacing(path: Path, fix: str | None = None) -> Iterator[Path]:
    """A draft beside `path`, to be written inside the block; it takes its place when all has gone well.

    Raises:
        AtinukeError: it cannot be written (disk full, no permission, not a file's name); nothing is left of it.
    """
    draft = path.with_name(f".{path.name}.partial") if path.name else path
    try:
        if not path.name or path.is_dir():
            raise IsADirectoryError(None, "is a folder")
        yield draft
        draft.replace(path)
    except OSError as error:
        raise fail(f"cannot be written: {error.strerror or error}", where=str(path), fix=fix) from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether there is anything of that name."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
