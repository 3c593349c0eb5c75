"""A bundle as one .zip: written the same for the same files, and unpacked without trusting it."""

import atexit
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from atinuke.core.errors import fail
from atinuke.core.files import replacing
from atinuke.runtime.lock import FILES, LOCK, PATH, read_lock
from atinuke.runtime.strict import brief

_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a .zip can say
_CHUNK = 1 << 20
_ENCRYPTED = 0x1
_BROKEN = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    ValueError,
    OverflowError,
)


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to: files, bytes of one file and of all, and how many times its own size (beyond the
    first mebibyte, since little files may be mostly blanks)."""

    files: int = FILES + 1
    size: int = 256 << 30
    total: int = 512 << 30
    ratio: int = 50


LIMITS = Limits()


def pack(folder: Path, archive: Path) -> None:
    """Writes a sealed bundle as a .zip: its files in order, as they are, with a fixed date.

    Raises:
        AtinukeError: the folder has no lock, or the archive cannot be written.
    """
    paths = sorted([LOCK, *read_lock(folder).files])
    with replacing(archive) as draft, zipfile.ZipFile(draft, "w") as whole:
        for path in paths:
            info = zipfile.ZipInfo(path, _DATE)
            info.create_system = 3  # Unix, wherever it is written
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.file_size = (folder / path).stat().st_size
            with (folder / path).open("rb") as source, whole.open(info, "w") as target:
                shutil.copyfileobj(source, target, _CHUNK)


def unpack(archive: Path, limits: Limits = LIMITS) -> Path:
    """A temporary folder with the files of a .zip, which goes when the process ends. It is created where Python keeps
    temporary files (TMPDIR).

    Raises:
        AtinukeError: it is damaged or no .zip; it holds a path that leads out, a link, a device, what is encrypted, or
            two entries of one name; or it would unpack to more than `limits`, or than there is room for.
    """
    folder = Path(tempfile.mkdtemp(prefix="atinuke-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        _unpack(archive, folder, limits)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _unpack(archive: Path, folder: Path, limits: Limits) -> None:
    where = str(archive)
    try:
        with zipfile.ZipFile(archive) as whole:
            entries = list(_checked(whole.infolist(), where, limits))
            _require_sizes(entries, archive.stat().st_size, shutil.disk_usage(folder).free, where, limits)
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with whole.open(entry) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
                if target.stat().st_size != entry.file_size:
                    raise EOFError(f"{entry.filename} is shorter than it says")
    except _BROKEN as error:
        what = "is no .zip that can be read: it is damaged or cut short"
        raise fail(what, brief(str(error)), where=where, fix="copy it anew") from None
    except OSError as error:
        raise fail(f"cannot be unpacked: {error.strerror or error}", where=where) from None


def _checked(entries: Sequence[zipfile.ZipInfo], where: str, limits: Limits) -> Iterator[zipfile.ZipInfo]:
    """The files of an archive, once their names are known to be harmless."""
    if len(entries) > limits.files:
        raise fail(f"holds {len(entries):,} files; a bundle has at most {limits.files:,}", where=where)
    files: set[str] = set()
    folders: set[str] = set()
    for entry in entries:
        name = entry.orig_filename  # `filename` ends at a zero byte
        shown, kind = brief(name), stat.S_IFMT(entry.external_attr >> 16)
        path = name.removesuffix("/")
        if not PATH.fullmatch(path):
            raise fail(f"{shown} is not a path that a bundle may have", where=where)
        if kind not in (0, stat.S_IFDIR if path != name else stat.S_IFREG):
            raise fail(f"{shown} is {'a link' if stat.S_ISLNK(kind) else 'no plain file'}", where=where)
        if entry.flag_bits & _ENCRYPTED:
            raise fail(f"{shown} is encrypted", where=where)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise fail(f"{shown} is packed in a way that bundles do not use", where=where, fix="use `deflate` or none")
        if path != name:
            continue
        lower = path.lower()
        folders.update(str(parent) for parent in PurePosixPath(lower).parents)
        if lower in files:
            raise fail(f"{shown} is there twice, or again in another case", where=where)
        files.add(lower)
        yield entry
    for name in files & folders:
        raise fail(f"{brief(name)} is a file and a folder", where=where)
    if LOCK not in files:
        fix = f"let {LOCK} stand at the top of the archive, in no folder"
        raise fail(f"is no bundle: it has no {LOCK}", where=where, fix=fix)


def _require_sizes(entries: Sequence[zipfile.ZipInfo], packed: int, room: int, where: str, limits: Limits) -> None:
    """Nothing is unpacked that is too large, by what the archive itself says; it is held to that later."""
    for entry in entries:
        if entry.file_size > limits.size:
            raise fail(
                f"`{entry.filename}` has {entry.file_size:,} bytes; at most {limits.size:,} are read", where=where
            )
    total = sum(entry.file_size for entry in entries)
    if total > limits.total:
        raise fail(f"unpacks to {total:,} bytes; at most {limits.total:,} are read", where=where)
    if total > limits.ratio * packed + (1 << 20):
        raise fail(f"unpacks to {total:,} bytes from {packed:,}: that is no bundle", where=where)
    if sum(entry.compress_size for entry in entries) > packed:
        raise fail("its entries overlap: that is no bundle", where=where)
    if total > room:
        raise fail(f"unpacks to {total:,} bytes, and there is room for {room:,}", where=where, fix="set TMPDIR")
