"""Rows that are known to be sound: each is looked at once before training, so that none fails in the middle of it."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from atinuke.core.errors import AtinukeError, Mistake, fail
from atinuke.core.names import close
from atinuke.pipelines.collate import collate
from atinuke.pipelines.fields import (
    Array,
    Audio,
    Class,
    Classes,
    Field,
    Tokens,
    columns,
    decode,
    mask_name,
    segments_name,
)
from atinuke.pipelines.rows import Rows
from atinuke.pipelines.sampler import Batch
from atinuke.pipelines.tokenizer import Tokenizer

Example = dict[str, Array | None]
CHUNK = 16  # rows looked at in one go
MEMORY = 1 << 29  # bytes of decoded examples that are kept: what is small is read once
NAMED = 5


@dataclass(frozen=True)
class Bad:
    """What is wrong with a row; `where` it stands."""

    where: str
    field: str
    mistake: Mistake

    @property
    def kind(self) -> str:
        """What it is counted as."""
        return f"{self.field}: {self.mistake.what}"

    def __str__(self) -> str:
        file = f" {self.mistake.where}" if self.mistake.where else ""
        details = f" ({'; '.join(self.mistake.details)})" if self.mistake.details else ""
        return f"{self.where}  {self.field}:{file} {self.mistake.what}{details}"


class Examples:
    """The good rows of a source: `len(examples)`, `examples[index]`, a dict of the fields. Those that are not `held`
    (by the number of the row) are decoded when asked for.

    `lengths[i]` is how long example i is among the others, all fields that are padded counting alike (mean 1 each);
    `missing` counts the examples that lack an optional field; `bad` has the rows that were left out.
    """

    def __init__(
        self,
        rows: Rows,
        fields: Mapping[str, Field],
        tokenizer: Tokenizer | None,
        kept: NDArray[np.int64],
        sizes: Mapping[str, NDArray[np.int64]],
        bad: tuple[Bad, ...],
        held: Mapping[int, Example],
    ) -> None:
        self.fields, self.bad = dict(fields), bad
        self._rows, self._tokenizer, self._kept, self._held = rows, tokenizer, kept, held
        self.missing = {name: int((found < 0).sum()) for name, found in sizes.items() if (found < 0).any()}
        padded = [np.maximum(sizes[name], 0) for name, field in fields.items() if isinstance(field, Audio | Tokens)]
        self.lengths: NDArray[np.float64] = sum((s / max(s.mean(), 1e-9) for s in padded), np.zeros(len(kept)))
        told = [rows.fingerprint, tokenizer and tokenizer.fingerprint, {n: f.model_dump() for n, f in fields.items()}]
        digest = hashlib.sha256(json.dumps(told).encode())
        for array in (kept, *(sizes[name] for name in fields)):
            digest.update(array.tobytes())
        self.fingerprint: str = digest.hexdigest()
        """Differs where a row, a field, a length or the tokenizer does."""

    def __len__(self) -> int:
        return len(self._kept)

    def some(self, indices: Sequence[int]) -> "Examples":
        """Only these examples; what is known of all (`missing`, `bad`, `fingerprint`) is still of all."""
        found = copy(self)
        found._kept, found.lengths = self._kept[list(indices)], self.lengths[list(indices)]
        return found

    def batch(self, indices: Sequence[int]) -> Batch:
        """These examples as one batch (see `collate`)."""
        return collate([self[index] for index in indices], self.fields)

    def __getitem__(self, index: int, /) -> Example:
        number = int(self._kept[index])
        if number in self._held:
            return dict(self._held[number])
        row = self._rows[number]
        try:
            return {name: decode(field, row, self._tokenizer) for name, field in self.fields.items()}
        except AtinukeError as error:
            what, mistake = f"row {row.where} was sound before and is not now", error.mistakes[0]
            raise fail(what, str(mistake), fix="put its files back, and resume") from None


def scan(
    rows: Rows,
    fields: Mapping[str, Field],
    tokenizer: Tokenizer | None = None,
    bad: Literal["stop", "skip"] = "stop",
    console: Console | None = None,
    workers: int = 2,
    memory: int = MEMORY,
) -> Examples:
    """Decodes every row once; what is bad stops the run, or is left out with a word on the console. The first examples
    are held, decoded, as far as `memory` bytes go.

    Classes must be known (`fields.with_classes`).

    Raises:
        AtinukeError: a column stands in no row, two tensors of a batch would have one name; a row is bad and `bad` is
            `stop`; or all are.
    """
    console = console or Console(stderr=True)
    _require_names(fields)
    shown = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    progress = Progress(*shown, console=console, transient=True)
    sizes = {name: np.zeros(len(rows), np.int64) for name in fields}
    found: list[Bad] = []
    faulty = np.zeros(len(rows), bool)
    seen: set[str] = set()
    held: dict[int, Example] = {}

    def look(start: int) -> tuple[int, list[Bad], set[str], dict[int, Example]]:
        wrong: list[Bad] = []
        there: set[str] = set()
        decoded: dict[int, Example] = {}
        stop = min(start + CHUNK, len(rows))
        for index in range(start, stop):
            row = rows[index]
            there |= row.keys()
            decoded[index] = {}
            for name, field in fields.items():
                try:
                    value = decoded[index][name] = decode(field, row, tokenizer)
                    sizes[name][index] = -1 if value is None else value.size
                except AtinukeError as error:
                    wrong.append(Bad(str(row.where), name, error.mistakes[0]))
                    faulty[index] = True
        return stop - start, wrong, there, decoded if memory > 0 else {}

    with progress, ThreadPoolExecutor(workers) as pool:
        task = progress.add_task("looking at every row", total=len(rows))
        try:
            for count, wrong, there, decoded in pool.map(look, range(0, len(rows), CHUNK)):
                found += wrong
                seen |= there
                for index, example in decoded.items():
                    memory -= sum(value.nbytes for value in example.values() if value is not None)
                    if memory >= 0:
                        held[index] = example
                progress.advance(task, count)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _require_columns(fields, seen)
    kept = np.flatnonzero(~faulty)
    _judge(found, int(faulty.sum()), len(rows), bad, console)
    return Examples(
        rows, fields, tokenizer, kept, {name: size[kept] for name, size in sizes.items()}, tuple(found), held
    )


def _require_names(fields: Mapping[str, Field]) -> None:
    """Refuses fields whose tensors or masks would have one name in a batch."""
    masks = (mask for name, field in fields.items() if (mask := mask_name(name, field)))
    names = [*fields, *masks, *filter(None, map(segments_name, fields.values()))]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        fix = "call one mask otherwise by `mask`"
        raise fail(f"two tensors of a batch would be called `{twice[0]}`", where="fields", fix=fix)
    unknown = [name for name, f in fields.items() if isinstance(f, Class | Classes) and f.classes is None]
    assert not unknown, f"with_classes comes before scan: {unknown}"


def _require_columns(fields: Mapping[str, Field], seen: set[str]) -> None:
    """A column that no row has is misspelt: rows without it would all be missing in silence."""
    for name, field in fields.items():
        for column in columns(field):
            if column not in seen:
                has = f"the columns: {', '.join(sorted(seen)) or 'none'}"
                raise fail(f"no row has a column `{column}`", has, where=name, fix=close(column, seen))


def _judge(found: list[Bad], faulty: int, rows: int, bad: Literal["stop", "skip"], console: Console) -> None:
    """Says what is bad, and goes on only where it may."""
    if not found:
        return
    counts = [f"{count:,} × {kind}" for kind, count in Counter(one.kind for one in found).most_common()]
    named = [str(one) for one in found[:NAMED]]
    rest = [f"and {len(found) - NAMED:,} more"] if len(found) > NAMED else []
    details = [*counts, *named, *rest]
    what = f"{faulty:,} of {rows:,} rows cannot be used"
    if bad == "stop" or faulty == rows:
        fix = None if bad == "skip" else "mend them or take them out, or set `bad: skip`"
        raise fail(what, *details, fix=fix)
    console.print("\n  ".join([f"{what} and are left out", *details]), markup=False, highlight=False, soft_wrap=True)
