"""Documents out of text files, JSON lines and Parquet, each plain or gzipped: one at a time, in a fixed order.

The name of a file says what it is, before a last `.gz`:

- `.jsonl`, `.ndjson`: an object a line; its field `text` is a document;
- `.parquet`: a table; each value of its column `text` is a document (needs `atinuke[parquet]`);
- anything else that is named: UTF-8 text, the whole file one document, or with `split="paragraph"` each run of lines
  between blank ones.

Documents that are empty or only white space are left out; a file without any other is an error.
"""

import glob
import gzip
import hashlib
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from atinuke.core.errors import Place, fail
from atinuke.core.files import exists, is_file

Split = Literal["file", "paragraph"]

JSON_LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet",)
IN_FOLDERS = (".txt", *JSON_LINES, *PARQUET)
BOM = b"\xef\xbb\xbf"


def find(sources: Iterable[str | Path]) -> list[Path]:
    """The files meant by paths, folders and patterns (`corpus/**/*.txt`), each once, sorted by path.

    A folder means every `.txt`, `.jsonl`, `.ndjson` and `.parquet` file below it, gzipped or not, unless it is hidden.

    Raises:
        AtinukeError: a source means no file.
    """
    found: set[Path] = set()
    for source in sources:
        path = Path(source)
        if exists(path) and path.is_dir():
            files = [file for file in path.rglob("*") if _kind(file) in IN_FOLDERS and not _hidden(file, path)]
        elif exists(path):
            files = [path]
        else:
            files = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - also absolute
        files = [file for file in files if is_file(file)]
        if not files:
            what = "holds no text" if exists(path) else "there is no such file"
            fix = f"in folders only {', '.join(IN_FOLDERS)} and .gz of these are read; name others by a pattern"
            raise fail(what, where=str(source), fix=fix if exists(path) else "check the path or the pattern")
        found.update(files)
    return sorted(found)


def documents(
    path: Path, field: str = "text", split: Split = "file", advance: Callable[[int], object] = lambda count: None
) -> Iterator[str]:
    """The documents of one file in their order; `advance` is told how many more bytes are read.

    Raises:
        AtinukeError: the file is missing, unreadable, truncated, not UTF-8 (with the byte), not valid JSON (with the
            line), lacks the field, or has no document.
    """
    kind, count, position = _kind(path), 0, 0
    if kind in (".json", ".csv", ".tsv"):
        raise fail(f"{kind} files are not read", where=str(path), fix="turn it into .jsonl: one JSON object a line")
    with _errors(path), path.open("rb") as raw:
        stream: BufferedIOBase = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        if kind in PARQUET:
            texts = _parquet(stream, path, field)
        elif kind in JSON_LINES:
            texts = (_text(record, field, where) for where, record in _json_lines(stream, path))
        elif split == "paragraph":
            texts = _paragraphs(stream, path)
        else:
            texts = iter([_decode(stream.read().removeprefix(BOM), path, 0)])
        for text in texts:
            before, position = position, raw.tell()
            advance(position - before)
            if text and not text.isspace():
                count += 1
                yield text
    if not count:
        raise fail("has no text", where=str(path), fix="leave it out or fill it")


def objects(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The JSON objects of a file that has one a line, plain or gzipped, each with its place.

    Raises:
        AtinukeError: the file is missing, unreadable, truncated, not UTF-8, or a line is not a JSON object.
    """
    with _unzipped(path) as stream:
        yield from _json_lines(stream, path)


def lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, plain or gzipped, with their ends.

    Raises:
        AtinukeError: the file is missing, unreadable, truncated or not UTF-8.
    """
    with _unzipped(path) as stream:
        for offset, line in _lines(stream):
            yield _decode(line, path, offset)


def fingerprint(path: Path) -> str:
    """The SHA-256 of a file's bytes.

    Raises:
        AtinukeError: the file cannot be read.
    """
    with _errors(path), path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def _kind(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


@contextmanager
def _unzipped(path: Path) -> Iterator[BufferedIOBase]:
    with _errors(path), path.open("rb") as raw:
        yield gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """What goes wrong while the bytes of a file are read, in the user's words."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise fail("is not a whole gzip file", str(error), where=str(path), fix="copy or download it again") from None
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror or error}", where=str(path)) from None


def _decode(raw: bytes, path: Path, offset: int) -> str:
    """Text from UTF-8; `offset` is where `raw` begins in the (unzipped) file."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        what, at = f"byte 0x{raw[error.start]:02x} at offset {offset + error.start:,}", str(path)
        raise fail("is not UTF-8 text", what, where=at, fix="save it as UTF-8, or leave it out") from None


def _lines(stream: BufferedIOBase) -> Iterator[tuple[int, bytes]]:
    """Lines with the offset of their first byte."""
    first, offset = stream.readline(), 0
    if first.startswith(BOM):
        first, offset = first.removeprefix(BOM), len(BOM)
    for line in chain([first], stream):
        yield offset, line
        offset += len(line)


def _paragraphs(stream: BufferedIOBase, path: Path) -> Iterator[str]:
    paragraph: list[bytes] = []
    start = 0
    for offset, line in chain(_lines(stream), [(0, b"")]):
        if line.strip():
            start = start if paragraph else offset
            paragraph.append(line)
        elif paragraph:
            yield _decode(b"".join(paragraph), path, start).rstrip("\r\n")
            paragraph = []


def _json_lines(stream: BufferedIOBase, path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    for number, (offset, line) in enumerate(_lines(stream), 1):
        if line.strip():
            where = Place(str(path), number)
            yield where, _object(_decode(line, path, offset), where)


def _object(line: str, where: Place) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        detail = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise fail("is not valid JSON", detail, where=where, fix="write one JSON object a line") from None
    if not isinstance(record, dict):
        raise fail(f"is not an object but {_shown(record)}", where=where, fix='write {"name": value, ...}')
    return record


def _text(record: dict[str, Any], field: str, where: Place) -> str:
    if field not in record:
        has = f"it has: {', '.join(map(_shown, record)) or 'nothing'}"
        raise fail(f"has no field `{field}`", has, where=where, fix="set `field` to the one that holds the text")
    text = record[field]
    if not isinstance(text, str):
        raise fail(f"field `{field}` is not a string but {_shown(text)}", where=where)
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise fail(f"field `{field}` has {half}, half a surrogate pair, which is no character", where=where) from None
    return text


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _parquet(stream: BufferedIOBase, path: Path, field: str) -> Iterator[str]:
    """Row group by row group, so that a table larger than memory can be read."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise fail("reading Parquet needs pyarrow", where=str(path), fix="pip install 'atinuke[parquet]'") from None
    with tempfile.TemporaryFile() as unzipped:
        if path.suffix == ".gz":  # Parquet is read from its end, which a gzip stream has to find first
            shutil.copyfileobj(stream, unzipped)
        row = 0
        try:
            table = parquet.ParquetFile(unzipped if path.suffix == ".gz" else stream)
            if field not in table.schema_arrow.names:
                columns = f"it has: {', '.join(table.schema_arrow.names)}"
                raise fail(f"has no column `{field}`", columns, where=str(path), fix="set `field` to the text's column")
            for batch in table.iter_batches(batch_size=1024, columns=[field]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    if not isinstance(text, str):
                        raise fail(f"row {row:,} of column `{field}` is not a string but {text!r:.40}", where=str(path))
                    yield text
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise fail(
                "is not a whole Parquet file", str(error), f"after row {row:,}", where=str(path), fix="copy it again"
            ) from None
