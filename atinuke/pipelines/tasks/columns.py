"""Rows of named columns out of the files that benchmarks come in: tables with tabs or commas, and JSON lines."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atinuke.core.errors import Place, fail
from atinuke.pipelines import text

COMMAS = ".csv"
TABLES = (".tsv", ".txt", COMMAS)
KINDS = (*TABLES, ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Layout:
    """The columns of a benchmark's file: those of its `texts`, of the `label` and of the `id`.

    Without a `label` it is a file to be answered; without an `id` the number of the row, from 0, is one. `header` are
    the columns of a table whose first line is a row already.
    """

    texts: tuple[str, ...]
    label: str | None = None
    id: str | None = None
    header: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        return (*filter(None, (self.id,)), *self.texts, *filter(None, (self.label,)))

    def __str__(self) -> str:
        return ", ".join(self.header or self.needed) + (" (without a header line)" if self.header else "")


@dataclass(frozen=True)
class Found:
    """A row, the layout of its file, and where it stands."""

    layout: Layout
    values: Mapping[str, Any]
    where: Place
    number: int


def read(file: Path, layouts: Sequence[Layout], task: str) -> Iterator[Found]:
    """The rows of a file in the first of the layouts that it has all columns of. Further columns are kept.

    Raises:
        AtinukeError: the file is unreadable or of another kind, its columns are others, or a row has not all of them.
    """
    kind = (file.with_suffix("") if file.suffix == ".gz" else file).suffix.lower()
    if kind not in KINDS:
        raise fail(f"is not a {' or '.join(KINDS)} file", where=str(file), fix="give one of these, plain or gzipped")
    is_table = kind in TABLES
    rows = _table(file, kind, layouts, task) if is_table else text.objects(file)
    layout: Layout | None = None
    for number, (where, values) in enumerate(rows):
        if layout is None:
            layout = _layout(layouts, values, Place(str(file), 1) if is_table else where, task)
        missing = [name for name in layout.needed if name not in values]
        if missing:
            has = f"it has: {', '.join(values) or 'nothing'}"
            raise fail(f"has no `{missing[0]}`", has, where=where, fix="give every row the same columns")
        yield Found(layout, values, where, number)
    if layout is None:
        raise fail("has no rows", where=str(file))


def _layout(layouts: Sequence[Layout], values: Mapping[str, Any], where: Place, task: str) -> Layout:
    for layout in layouts:
        if all(name in values for name in layout.needed):
            return layout
    expected = [f"expected: {layout}" for layout in layouts]
    raise fail(f"has other columns than {task}", f"its columns: {', '.join(values)}", *expected, where=where)


def _table(file: Path, kind: str, layouts: Sequence[Layout], task: str) -> Iterator[tuple[Place, dict[str, str]]]:
    """A table; a first line that has as many cells as a header would, and is none, is a row where a layout may do
    without."""
    header: list[str] | None = None
    for where, cells in _cells(file, kind):
        if header is None:
            bare = next((one for one in layouts if len(one.header) == len(cells) and _is_row(one, cells)), None)
            header = list(bare.header) if bare else cells
            if len(set(header)) < len(header):
                raise fail("has a column twice", f"its columns: {', '.join(header)}", where=where)
            if bare is None:
                continue
        if len(cells) != len(header):
            told = f"its columns: {', '.join(header)}"
            raise fail(f"has {len(cells)} cells, where {task} has {len(header)} columns", told, where=where)
        yield where, dict(zip(header, cells, strict=True))


def _cells(file: Path, kind: str) -> Iterator[tuple[Place, list[str]]]:
    """The cells of each row: parted by commas, quoted as RFC 4180 has it; or by tabs, without quoting."""
    lines = text.lines(file)
    if kind != COMMAS:
        for number, line in enumerate(lines, 1):
            yield Place(str(file), number), line.rstrip("\r\n").split("\t")
        return
    reader = csv.reader(lines, strict=True)
    try:
        for cells in reader:
            yield Place(str(file), reader.line_num), cells
    except csv.Error as error:
        raise fail("is not CSV", str(error), where=Place(str(file), reader.line_num)) from None


def _is_row(layout: Layout, cells: Sequence[str]) -> bool:
    """Whether cells are values: a number stands where the label does."""
    return layout.label is not None and cells[layout.header.index(layout.label)].isdecimal()
