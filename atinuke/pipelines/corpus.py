"""From text files to the tokens of a training run: encoded in parallel, once, and found again by their content."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from atinuke.core.errors import fail
from atinuke.pipelines import shards
from atinuke.pipelines.shards import PARTS, Documents, Part, Tokens
from atinuke.pipelines.text import Split, documents, find, fingerprint
from atinuke.pipelines.tokenizer import Tokenizer

SHARD = 512 << 20  # bytes of files: what an interrupted run does again; each shard keeps two files open
BATCH = 1 << 20  # characters: one call of the tokenizer, some 40 ms
AHEAD = 2  # batches a thread that are read before the first is written

Encoded = dict[Part, Documents]


class Corpus(NamedTuple):
    """Tokens to train on and tokens to evaluate on."""

    train: Tokens
    validation: Tokens


def prepare(
    sources: Iterable[str | Path],
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
    encode = partial(_encode, tokenizer, validation)
    settings = [tokenizer.fingerprint, validation, field, split]
    folders, done = [], 0
    with _progress(console) as progress:
        task = progress.add_task("tokens", total=sum(map(_size, files)))
        for group in _groups(files, shard):
            folder = Path(cache) / _key(group, settings)
            with shards.writing(folder, tokenizer) as writer:
                if writer:
                    _fill(writer, (documents(file, field, split) for file in group))
            folders.append(folder)
            ...
    corpus = Corpus(*(Tokens(folders, tokenizer, part) for part in PARTS))
    return corpus
