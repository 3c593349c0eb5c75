"""Where examples come from: rows of named values, out of manifests, folders, tables and Hugging Face data sets.

```yaml
train: {name: manifest, files: [train/*.jsonl]}     # {"sound": "wavs/1.wav", "label": "seven"}, an object a line
train: {name: folders, path: flowers}               # flowers/rose/1.jpg gives {"file": "rose/1.jpg", "class": "rose"}
train: {name: table, files: [train.tsv]}            # .csv, .tsv, .parquet; a first line names the columns
train: {name: sentences, files: [texts/*.txt]}      # {"first": "It rains.", "second": "We stay in.", "next": "yes"}
train: {name: datasets, path: saved, split: train}  # needs atinuke[datasets]
```

Nothing is decoded here: a row names a file, from the folder of the manifest or table on, or holds the bytes of one.
"""

import csv
import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from atinuke.core.component import Choice
from atinuke.core.errors import AtinukeError, Place, fail
from atinuke.core.registry import Registry
from atinuke.pipelines import text
from atinuke.pipelines.section import Chosen

Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class Source(Chosen):
    """Where rows come from. A new source is a subclass with `open`; a plugin names it in the hook `atinuke_sources`.

    Settings called `files` (names or patterns) and `path` are relative to the recipe, and absolute when it is read.
    """

    @classmethod
    def find(cls, name: str) -> Choice:
        return Registry().source(name)

    def open(self) -> "Rows":
        """Its rows, which may be none.

        Raises:
            AtinukeError: a file is missing, unreadable or not of its format, or a library is missing.
        """
        raise NotImplementedError


class Manifest(Source):
    """JSON lines files (`.gz` too), or patterns of them; a value of `null` is missing."""

    name: Literal["manifest"] = "manifest"
    files: Names

    def open(self) -> "Rows":
        found = text.find(self.files)
        return Listed([row for file in found for row in _manifest(file)], fingerprint(found))


class Folders(Source):
    """A folder of folders, each named after the class of all files below it.

    The columns are `file` and `class`. Hidden files, and files beside the folders, are no rows.
    """

    name: Literal["folders"] = "folders"
    path: str

    def open(self) -> "Rows":
        return _folders(Path(self.path).expanduser())


class Table(Source):
    """CSV (RFC 4180), TSV (no quoting) or Parquet files, or patterns of them; an empty cell is missing.

    Tables are held in memory.
    """

    name: Literal["table"] = "table"
    files: Names

    def open(self) -> "Rows":
        found = text.find(self.files)
        parquet = [file.suffix.lower() == ".parquet" for file in found]
        if any(parquet) and not all(parquet):
            raise fail("Parquet and other tables cannot be one source", where=", ".join(self.files))
        if any(parquet):
            return Parquet(found)
        return Listed([row for file in found for row in _cells(file)], fingerprint(found))


class Datasets(Source):
    """A Hugging Face data set: saved or laid out in the folder `path`, or called `hub` on their hub."""

    name: Literal["datasets"] = "datasets"
    path: str | None = None
    hub: str | None = None
    split: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("must have either `path` or `hub`")
        return self

    def open(self) -> "Rows":
        return _datasets(self)


class Row(dict[str, Any]):
    """The named values of one row; `where` it stands, and the `folder` from which paths in it start."""

    def __init__(self, values: dict[str, Any], where: Place | str, folder: Path) -> None:
        super().__init__(values)
        self.where, self.folder = where, folder


class Rows(Protocol):
    """Rows in a fixed order. `fingerprint` differs where a name or value differs."""

    fingerprint: str

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Row: ...


def open_rows(source: Source) -> Rows:
    """The rows of a source.

    Raises:
        AtinukeError: a file is missing, unreadable or not of its format, there is no row, or a library is missing.
    """
    rows = source.open()
    if not len(rows):
        raise fail("has no rows", where=", ".join(getattr(source, "files", None) or [str(source)]))
    return rows


class Listed:
    """Rows in memory."""

    def __init__(self, rows: Sequence[Row], fingerprint: str) -> None:
        self._rows, self.fingerprint = rows, fingerprint

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> Row:
        return self._rows[index]


class Parquet:
    """The rows of Parquet files."""

    def __init__(self, files: Sequence[Path]) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise fail(
                "reading Parquet needs pyarrow", where=str(files[0]), fix="pip install 'atinuke[parquet]'"
            ) from None
        self.fingerprint = fingerprint(files)
        self._files, self._tables = files, []
        for file in files:
            try:
                self._tables.append(parquet.read_table(file))
            except (pyarrow.ArrowException, OSError) as error:
                raise fail("is not a whole Parquet file", str(error), where=str(file), fix="copy it again") from None
        self._ends = list(accumulate(map(len, self._tables)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int, /) -> Row:
        number = bisect_right(self._ends, index)
        table, file = self._tables[number], self._files[number]
        row = index - (self._ends[number] - len(table))
        return Row(table.slice(row, 1).to_pylist()[0], f"{file} row {row + 1:,}", file.parent)


class HuggingFace:
    """The rows of a `datasets.Dataset`: sounds and pictures stay encoded, classes are names."""

    def __init__(self, dataset: Any, name: str, folder: Path) -> None:
        import datasets

        self._classes: dict[str, Any] = {}
        for column, feature in dataset.features.items():
            if isinstance(feature, datasets.Audio | datasets.Image):
                dataset = dataset.cast_column(column, type(feature)(decode=False))
            elif isinstance(feature, datasets.ClassLabel):
                self._classes[column] = feature.names
        self._dataset, self._name, self._folder = dataset, name, folder
        self.fingerprint: str = dataset._fingerprint  # what the library itself keeps its caches by

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int, /) -> Row:
        values = dict(self._dataset[index])
        for column, names in self._classes.items():
            number = values[column]
            values[column] = None if number is None or number < 0 else names[number]  # -1 is the library's missing
        return Row(values, f"{self._name} row {index + 1:,}", self._folder)


def _manifest(file: Path) -> Iterator[Row]:
    return (Row(values, where, file.parent) for where, values in text.objects(file))


def _folders(path: Path) -> Rows:
    if not path.is_dir():
        raise fail("is not a folder", where=str(path), fix="name a folder that has one folder for each class")
    found = sorted(
        file.relative_to(path)
        for folder in path.iterdir()
        if folder.is_dir()
        for file in folder.rglob("*")
        if file.is_file()
    )
    shown = [name for name in found if not any(part.startswith(".") for part in name.parts)]
    rows = [Row({"file": str(name), "class": name.parts[0]}, str(path / name), path) for name in shown]
    names = json.dumps([str(name) for name in shown])
    return Listed(rows, hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest())


def _cells(file: Path) -> Iterator[Row]:
    """The rows of a CSV or TSV file."""
    kind = (file.with_suffix("") if file.suffix == ".gz" else file).suffix.lower()
    if kind not in (".csv", ".tsv"):
        raise fail("is not a .csv, .tsv or .parquet file", where=str(file), fix="give one of these")
    dialect: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == ".tsv" else {}
    reader = csv.reader(text.lines(file), strict=True, **dialect)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            where = Place(str(file), reader.line_num)
            if header is None:
                header = cells
                if len(set(header)) < len(header):
                    raise fail("has a column twice", f"its columns: {', '.join(header)}", where=where)
            elif len(cells) != len(header):
                raise fail(f"has {len(cells)} cells", f"the first line has {len(header)}", where=where)
            else:
                yield Row({name: cell or None for name, cell in zip(header, cells, strict=True)}, where, file.parent)
    except csv.Error as error:
        raise fail(f"is not {kind[1:].upper()}", str(error), where=Place(str(file), reader.line_num)) from None


def _datasets(source: Datasets) -> Rows:
    try:
        import datasets
    except ImportError:
        raise fail("this source needs the datasets library", fix="pip install 'atinuke[datasets]'") from None
    where = source.path or source.hub
    assert where
    path = Path(where).expanduser()
    try:
        if source.path and not path.is_dir():
            raise fail("is not a folder", where=where)
        if source.path and any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            found = datasets.load_from_disk(str(path))
            found = found[source.split] if source.split and isinstance(found, dict) else found
        else:
            found = datasets.load_dataset(str(path) if source.path else where, split=source.split)
    except AtinukeError:
        raise
    except Exception as error:  # the library's own and those of what it is built on
        raise fail("cannot be opened as a data set", f"{type(error).__name__}: {error}", where=where) from None
    if isinstance(found, dict):
        raise fail("has several splits", f"they are: {', '.join(found)}", where=where, fix="name one by `split`")
    return HuggingFace(found, where, path)


def fingerprint(files: Sequence[Path]) -> str:
    """Differs where a file does."""
    return hashlib.sha256("".join(map(text.fingerprint, files)).encode()).hexdigest()
