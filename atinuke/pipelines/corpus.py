"""From text files to the tokens of a training run: encoded in parallel, once, and found again by their content."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from atinuke.core.errors import fail
from atinuke.pipelines.shards import PARTS, Documents, Part, Tokens, writing
from atinuke.pipelines.text import Split, documents, find, fingerprint
from atinuke.pipelines.tokenizer import Tokenizer

SHARD = 512 << 20  # bytes of files: what an interrupted run does again; each shard keeps two files open
BATCH = 1 << 20  # characters: one call of the tokenizer, some 40 ms without the interpreter's lock

Item = TypeVar("Item")
Result = TypeVar("Result")


class Corpus(NamedTuple):
    """Tokens to train on and tokens to evaluate on."""

    train: Tokens
    validation: Tokens


def prepare(
    sources: Sequence[str | Path],
    tokenizer: Tokenizer,
    cache: str | Path,
    *,
    validation: float = 0.0,
    field: str = "text",
    split: Split = "file",
    console: Console | None = None,
    shard: int = SHARD,
) -> Corpus:
    """The tokens of all documents of the sources (see `text.find`), in order, with an end of text after each.

    A share `validation` of the documents is set apart. A hash of a document's text decides: equal documents are on the
    same side, and each stays on its side whatever is added to the corpus.

    Consecutive files of together about `shard` bytes make one shard in the folder `cache`, which is found again by the
    content of its files, the tokenizer and the settings: an interrupted run goes on with the first shard that is
    missing. Progress is shown on `console`.

    Raises:
        AtinukeError: a source or a document cannot be read, a shard cannot be written or is damaged, or a part that was
            asked for has come out empty.
    """
    files = find(sources)
    sizes = {file: file.stat().st_size for file in files}
    encode = partial(_encode, tokenizer, validation)
    settings = [tokenizer.fingerprint, validation, field, split]
    folders: list[Path] = []
    with _progress(console) as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        task = progress.add_task("tokens", total=sum(sizes.values()))
        done = 0
        for group in _groups(sizes, shard):
            folder = Path(cache) / _key(group, settings)
            with writing(folder, tokenizer) as writer:
                if writer:
                    read = (documents(file, field, split, partial(progress.advance, task)) for file in group)
                    for encoded in _map(pool, encode, _batches(chain.from_iterable(read))):
                        writer.add(encoded)
            folders.append(folder)
            done += sum(sizes[file] for file in group)
            progress.update(task, completed=done)
    corpus = Corpus(*(Tokens(folders, tokenizer, part) for part in PARTS))
    if not corpus.train or (validation and not corpus.validation):
        part = "validate" if corpus.train else "train"
        count = len(corpus.train.starts()) + len(corpus.validation.starts())
        raise fail(
            f"no document is left to {part} on",
            f"{count} in all, and a share of {validation} for validation",
            where=", ".join(map(str, sources)),
            fix="give validation texts of their own, more documents, or another share",
        )
    return corpus


def _groups(sizes: dict[Path, int], most: int) -> Iterator[list[Path]]:
    """Consecutive files of together at most `most` bytes; a larger file stands alone."""
    group: list[Path] = []
    total = 0
    for file, size in sizes.items():
        if group and total + size > most:
            yield group
            group, total = [], 0
        group.append(file)
        total += size
    if group:
        yield group


def _key(files: Sequence[Path], settings: Sequence[object]) -> str:
    """The name of a shard: equal if and only if it would be read from equal bytes in an equal way."""
    contents = [(file.suffixes[-2:], fingerprint(file)) for file in files]
    return hashlib.sha256(json.dumps([settings, contents]).encode()).hexdigest()[:32]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    length = 0
    for text in texts:
        batch.append(text)
        length += len(text)
        if length >= BATCH:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def is_held_out(text: bytes, validation: float) -> bool:
    """Whether a document is one of the share that is set apart for validation."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64 < validation


def _encode(tokenizer: Tokenizer, validation: float, texts: Sequence[str]) -> dict[Part, Documents]:
    """Runs in a thread."""
    parts: dict[Part, list[int]] = {part: [] for part in PARTS}
    raw = [text.encode() for text in texts]
    for number, text in enumerate(raw):
        parts["validation" if is_held_out(text, validation) else "train"].append(number)
    tokens = tokenizer.encode_batch(texts)
    end = np.array([tokenizer.end_of_text], tokenizer.dtype)
    return {
        part: Documents(
            np.concatenate([end[:0], *chain.from_iterable((tokens[number], end) for number in numbers)]),
            [len(tokens[number]) + 1 for number in numbers],
            sum(len(raw[number]) for number in numbers),
        )
        for part, numbers in parts.items()
    }


def _map(pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Like `pool.map`, but reads only a few items ahead."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > 2 * (os.cpu_count() or 1):
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _progress(console: Console | None) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, disable=console is None, transient=True)
