"""Tokens on disk: shards that are written whole or not at all, checked when opened, and read as one array.

A shard is a folder with two parts, `train` and `validation`:

    index.json       what is in it, and which tokenizer made it
    PART.tokens      each document's tokens and an end of text after it; uint16 or uint32
    PART.starts      where each document starts; int64

The numbers are little-endian and have no header. Tokens are memory-mapped: opening a shard reads a few bytes.
"""

import shutil
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import NonNegativeInt, ValidationError

from atinuke.core.errors import fail
from atinuke.pipelines.section import Section
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.runtime.bytelevel import Ids

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
    dtype: str
    train: Size
    validation: Size


class Documents(NamedTuple):
    """Some documents: their tokens, each followed by an end of text; their lengths with it; the bytes of their text."""

    tokens: Ids
    lengths: Sequence[int]
    bytes: int


class Tokens:
    """One part of some shards, read as one array: `len(tokens)`, and `tokens[start:stop]`, which is a copy.

    Raises:
        AtinukeError: a shard is damaged, or made with another tokenizer.
    """

    def __init__(self, shards: Iterable[Path], tokenizer: Tokenizer, part: Part) -> None:
        self._dtype = _little(tokenizer)
        self._pieces: list[Ids] = []
        self._starts: list[Path] = []
        self.bytes = 0
        """The length of the documents' text in UTF-8."""
        for shard in shards:
            size = _size(shard, tokenizer, part)
            self.bytes += size.bytes
            if size.tokens:  # nothing cannot be mapped
                self._pieces.append(np.asarray(np.memmap(shard / f"{part}.tokens", self._dtype, mode="r")))
                self._starts.append(shard / f"{part}.starts")
        self._ends = list(accumulate(map(len, self._pieces)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, span: slice) -> Ids:
        start, stop, step = span.indices(len(self))
        if step != 1:
            raise ValueError("tokens are read without a step")
        found = [np.empty(0, self._dtype)]
        number = bisect_right(self._ends, start)
        while start < stop:
            before = self._ends[number] - len(self._pieces[number])
            found.append(self._pieces[number][start - before : stop - before])
            start, number = self._ends[number], number + 1
        return np.concatenate(found)

    def starts(self) -> NDArray[np.int64]:
        """Where each document starts; read from the files."""
        befores = [0, *self._ends]
        starts = (np.fromfile(file, START) + before for file, before in zip(self._starts, befores, strict=False))
        return np.concatenate([np.empty(0, np.int64), *starts])


class Writer:
    """Adds documents to a shard that is being written."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], files: ExitStack) -> None:
        self._dtype = dtype
        self._files = {
            part: [files.enter_context((folder / f"{part}.{kind}").open("wb")) for kind in ("tokens", "starts")]
            for part in PARTS
        }
        self.sizes: dict[Part, Size] = dict.fromkeys(PARTS, Size())

    def add(self, found: Mapping[Part, Documents]) -> None:
        """More documents of each part."""
        for part, new in found.items():
            tokens, starts = self._files[part]
            size = self.sizes[part]
            tokens.write(new.tokens.astype(self._dtype).tobytes())
            starts.write((np.cumsum([size.tokens, *new.lengths])[:-1]).astype(START).tobytes())
            self.sizes[part] = Size(
                tokens=size.tokens + len(new.tokens),
                documents=size.documents + len(new.lengths),
                bytes=size.bytes + new.bytes,
            )


@contextmanager
def writing(folder: Path, tokenizer: Tokenizer) -> Iterator[Writer | None]:
    """A shard to be filled, which becomes `folder` when all has gone well; None where the folder is there already.

    Processes that want the same shard wait for the one that is writing it. What a killed one left is cleared away.

    Raises:
        AtinukeError: the shard cannot be written (disk full, no permission).
    """
    if folder.exists():
        yield None
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if folder.exists():
                yield None
            else:
                yield from _draft(folder, tokenizer)
    except OSError as error:
        raise fail(f"cannot be written: {error.strerror or error}", where=str(folder)) from None


def _draft(folder: Path, tokenizer: Tokenizer) -> Iterator[Writer]:
    draft = folder.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir()  # Ctrl-C during this is raised when it is there
        with ExitStack() as files:
            writer = Writer(draft, _little(tokenizer), files)
            yield writer
        train, validation = (writer.sizes[part] for part in PARTS)
        index = Index(tokenizer=tokenizer.fingerprint, dtype=tokenizer.dtype.name, train=train, validation=validation)
        (draft / INDEX).write_text(index.model_dump_json(indent=2))
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _size(shard: Path, tokenizer: Tokenizer, part: Part) -> Size:
    """What is in a part, once it is found to be whole and made with this tokenizer."""
    fix = "delete this folder: it is made again from the texts"
    try:
        index = Index.model_validate_json((shard / INDEX).read_bytes())
        lengths = {file.name: file.stat().st_size for file in shard.iterdir()}
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror or error}", where=str(shard / INDEX), fix=fix) from None
    except ValidationError as error:
        details = (f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
        raise fail("is not the index of a shard", *details, where=str(shard / INDEX), fix=fix) from None
    if (index.tokenizer, index.dtype) != (tokenizer.fingerprint, tokenizer.dtype.name):
        raise fail("was made with another tokenizer", where=str(shard), fix=fix)
    size: Size = getattr(index, part)
    expected = {"tokens": size.tokens * tokenizer.dtype.itemsize, "starts": size.documents * START.itemsize}
    for kind, length in expected.items():
        found = lengths.get(f"{part}.{kind}", 0)
        if found != length:
            what = f"expected {length:,} bytes, found {found:,}"
            raise fail("is not whole", what, where=str(shard / f"{part}.{kind}"), fix=fix)
    return size


def _little(tokenizer: Tokenizer) -> np.dtype[Any]:
    return tokenizer.dtype.newbyteorder("<")
