"""Tokens on disk: shards that are written whole or not at all, checked when opened, and read as one array.

A shard is a folder with two parts, `train` and `validation`:

    index.json       what is in it, and which tokenizer made it
    PART.tokens      each document's tokens and an end of text after it; uint16 or uint32
    PART.starts      where each document starts; int64

The numbers are little-endian and have no header. Tokens are memory-mapped: opening a shard reads a few bytes.
"""

import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import NonNegativeInt, ValidationError

from atinuke.core.errors import fail
from atinuke.pipelines.bytelevel import Ids
from atinuke.pipelines.section import Section
from atinuke.pipelines.tokenizer import Tokenizer

Part = Literal["train", "validation"]
PARTS: tuple[Part, ...] = ("train", "validation")
START = np.dtype("<i8")
INDEX = "index.json"


class Size(Section):
    """How much there is; `bytes` are those of the text as UTF-8."""

    tokens: NonNegativeInt = 0
    documents: NonNegativeInt = 0
    bytes: NonNegativeInt = 0


class Index(Section):
    """The contents of `index.json`."""

    format: Literal["atinuke.shard"] = "atinuke.shard"
    version: Literal[1] = 1
    tokenizer: str
    dtype: Literal["uint16", "uint32"]
    train: Size
    validation: Size


class Documents(NamedTuple):
    """Some documents: their tokens, each followed by an end of text; their lengths with it; the bytes of their text."""

    tokens: Ids
    lengths: Sequence[int]
    bytes: int


class Tokens:
    """Documents one after another, lying in files, read as one array: `len(tokens)` and `tokens[start:stop]`, a copy."""

    def __init__(self, shards: Sequence[Path], indices: Sequence[Index], part: Part) -> None:
        sizes: list[Size] = [getattr(index, part) for index in indices]
        full = [(shard, index, size) for shard, index, size in zip(shards, indices, sizes, strict=True) if size.tokens]
        self._pieces = [np.memmap(shard / f"{part}.tokens", _dtype(index), mode="r") for shard, index, _ in full]
        self._ends = list(accumulate(map(len, self._pieces)))
        self._starts = [shard / f"{part}.starts" for shard, _, _ in full]
        self.bytes = sum(size.bytes for size in sizes)
        """The bytes of the documents' text."""

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, span: slice) -> Ids:
        start, stop, step = span.indices(len(self))
        if step != 1:
            raise ValueError("tokens are read without a step")
        found: list[Ids] = []
        number = bisect_right(self._ends, start)
        while start < stop:
            piece, end = self._pieces[number], self._ends[number]
            found.append(piece[start - end + len(piece) : stop - end + len(piece)])
            start, number = end, number + 1
        return np.concatenate(found) if found else np.empty(0, np.uint16)

    def documents(self) -> NDArray[np.int64]:
        """Where each document starts, read anew with each call."""
        befores = [0, *self._ends[:-1]]
        starts = [np.fromfile(file, START) + before for file, before in zip(self._starts, befores, strict=False)]
        return np.concatenate([np.empty(0, np.int64), *starts])


class Writer:
    """Adds documents to a shard that is being written."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], files: ExitStack) -> None:
        self._dtype = dtype.newbyteorder("<")
        self._files = {
            part: [files.enter_context((folder / f"{part}.{kind}").open("wb")) for kind in ("tokens", "starts")]
            for part in PARTS
        }
        self.sizes = dict.fromkeys(PARTS, Size())

    def add(self, part: Part, new: Documents) -> None:
        """Documents after those that are there."""
        tokens, starts = self._files[part]
        size = self.sizes[part]
        tokens.write(new.tokens.astype(self._dtype, copy=False).data)
        starts.write(np.array([*accumulate(new.lengths[:-1], initial=size.tokens)], START).data)
        self.sizes[part] = Size(
            tokens=size.tokens + len(new.tokens),
            documents=size.documents + len(new.lengths),
            bytes=size.bytes + new.bytes,
        )


@contextmanager
def writing(folder: Path, tokenizer: Tokenizer) -> Iterator[Writer | None]:
    """A shard to be filled, which appears as `folder` when all went well; None if it is there already.

    Processes that want the same shard wait for the one that writes it. What a killed one left behind is cleared away.

    Raises:
        AtinukeError: the shard cannot be written (disk full, no permission).
    """
    draft = folder.with_name(f".{folder.name}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if folder.exists():
                yield None
                return
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            with ExitStack() as files:
                writer = Writer(draft, tokenizer.dtype, files)
                yield writer
            index = Index(tokenizer=tokenizer.fingerprint, dtype=tokenizer.dtype.name, **writer.sizes)
            (draft / INDEX).write_text(index.model_dump_json(indent=2))
            draft.rename(folder)
    except OSError as error:
        raise fail(f"cannot be written: {error.strerror or error}", where=str(folder)) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def index(folder: Path, tokenizer: Tokenizer) -> Index:
    """What is in a shard, once it is found to be whole and made with this tokenizer.

    Raises:
        AtinukeError: files are missing, truncated or foreign.
    """
    fix = "delete this folder; it is made again from the texts"
    try:
        found = Index.model_validate_json((folder / INDEX).read_bytes())
        lengths = {file.name: file.stat().st_size for file in folder.iterdir()}
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror or error}", where=str(folder), fix=fix) from None
    except ValidationError as error:
        details = (f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
        raise fail("is not the index of a shard", *details, where=str(folder / INDEX), fix=fix) from None
    if found.tokenizer != tokenizer.fingerprint:
        raise fail("was made with another tokenizer", where=str(folder), fix=fix)
    for part in PARTS:
        size: Size = getattr(found, part)
        expected = {"tokens": size.tokens * np.dtype(found.dtype).itemsize, "starts": size.documents * START.itemsize}
        for kind, length in expected.items():
            if (got := lengths.get(f"{part}.{kind}")) != length:
                detail = f"expected {length:,} bytes, got {'none' if got is None else f'{got:,}'}"
                raise fail("is not whole", detail, where=str(folder / f"{part}.{kind}"), fix=fix)
    return found


def _dtype(index: Index) -> np.dtype[Any]:
    return np.dtype(index.dtype).newbyteorder("<")
