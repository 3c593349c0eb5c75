"""Rows of every kind of source against what was written."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.rows import Datasets, Folders, Manifest, Rows, Table, open_rows

VALUES: list[dict[str, Any]] = [
    {"sound": "a.wav", "label": "one", "score": 1.5},
    {"sound": None, "label": "two", "score": -2.0},
    {"sound": "c.wav", "label": "Bẹ́ẹ̀ni, “yes”\u2028", "score": 0.0},
]


def rows_of(rows: Rows) -> list[dict[str, Any]]:
    return [dict(rows[index]) for index in range(len(rows))]


def manifest(path: Path, values: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(value, ensure_ascii=False)}\n" for value in values), encoding="utf-8")
    return path


def failure(function: Callable[[], object]) -> str:
    with pytest.raises(AtinukeError) as caught:
        function()
    return str(caught.value)


def test_manifests(tmp_path: Path) -> None:
    first, second = manifest(tmp_path / "a" / "1.jsonl", VALUES), manifest(tmp_path / "b" / "2.jsonl", VALUES[:1])
    (tmp_path / "b" / "2.jsonl.gz").write_bytes(gzip.compress(second.read_bytes()))
    second.unlink()
    rows = open_rows(Manifest(files=(str(tmp_path / "*" / "*.jsonl*"),)))
    assert rows_of(rows) == [*VALUES, VALUES[0]]
    assert str(rows[1].where) == f"{first}:2"
    assert [rows[2].folder, rows[3].folder] == [tmp_path / "a", tmp_path / "b"]


def test_folders(tmp_path: Path) -> None:
    for name in ("rose/2.jpg", "rose/1.jpg", "lily/deep/3.jpg", "lily/.hidden", ".git/x", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    rows = open_rows(Folders(path=str(tmp_path)))
    assert rows_of(rows) == [
        {"file": "lily/deep/3.jpg", "class": "lily"},
        {"file": "rose/1.jpg", "class": "rose"},
        {"file": "rose/2.jpg", "class": "rose"},
    ]
    assert all((row.folder / row["file"]).is_file() for row in map(rows.__getitem__, range(3)))
    assert "is not a folder" in failure(lambda: open_rows(Folders(path=str(tmp_path / "x"))))
    (tmp_path / "empty").mkdir()
    assert "has no rows" in failure(lambda: open_rows(Folders(path=str(tmp_path / "empty"))))


def test_tables_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfname,text\r\nx,"a ""b"", c\nd"\r\n\r\ny,\r\n')
    assert rows_of(open_rows(Table(files=(str(tmp_path / "a.csv"),)))) == [
        {"name": "x", "text": 'a "b", c\nd'},
        {"name": "y", "text": None},
    ]
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(b'name\ttext\n"x\tsaid "so"\n'))
    rows = open_rows(Table(files=(str(tmp_path / "b.tsv.gz"),)))
    assert rows_of(rows) == [{"name": '"x', "text": 'said "so"'}]
    assert str(rows[0].where) == f"{tmp_path / 'b.tsv.gz'}:2"


def test_parquet(tmp_path: Path) -> None:
    for number, values in enumerate((VALUES[:2], VALUES[2:])):
        parquet.write_table(pyarrow.Table.from_pylist(values), tmp_path / f"{number}.parquet")
    rows = open_rows(Table(files=(str(tmp_path / "*.parquet"),)))
    assert rows_of(rows) == VALUES
    assert rows[2].where == f"{tmp_path / '1.parquet'} row 1"
    with pytest.raises(IndexError):
        rows[3]


BROKEN = {
    "json.jsonl": (b'{"a": 1}\n{"a": \n', ":2  is not valid JSON"),
    "list.jsonl": (b"[1]\n", ":1  is not an object but [1]"),
    "latin.jsonl": ('{"a": "é"}\n'.encode("latin-1"), "is not UTF-8 text"),
    "cells.csv": (b"a,b\n1,2\n3\n", ":3  has 1 cells\n  the first line has 2"),
    "twice.csv": (b"a,a\n1,2\n", ":1  has a column twice"),
    "quote.csv": (b'a,b\n1,"2\n', "is not CSV"),
    "latin.tsv": ("a\té\n".encode("latin-1"), "is not UTF-8 text"),
    "header.tsv": (b"a\tb\n", "has no rows"),
    "a.xlsx": (b"PK", "is not a .csv, .tsv or .parquet file"),
    "text.parquet": (b"hello", "is not a whole Parquet file"),
    "cut.tsv.gz": (gzip.compress(b"a\tb\n" * 5000)[:-10], "is not a whole gzip file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_sources(name: str, tmp_path: Path) -> None:
    data, message = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    kind = Manifest if name.endswith(".jsonl") else Table
    said = failure(lambda: open_rows(kind(files=(str(tmp_path / name),))))
    assert message in said
    assert said.startswith(str(tmp_path / name))


def test_mixed_tables_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "a.parquet")
    assert "cannot be one source" in failure(lambda: open_rows(Table(files=(str(tmp_path / "a.*"),))))
    assert "there is no such file" in failure(lambda: open_rows(Manifest(files=(str(tmp_path / "x.jsonl"),))))


def test_fingerprints_tell_sources_apart(tmp_path: Path) -> None:
    a = Manifest(files=(str(manifest(tmp_path / "a.jsonl", VALUES)),))
    b = Manifest(files=(str(manifest(tmp_path / "b.jsonl", VALUES[::-1])),))
    (tmp_path / "f" / "x").mkdir(parents=True)
    (tmp_path / "f" / "x" / "1").touch()
    folders = Folders(path=str(tmp_path / "f"))
    before = open_rows(folders).fingerprint
    (tmp_path / "f" / "x" / "1").rename(tmp_path / "f" / "x" / "2")
    found = [open_rows(a).fingerprint, open_rows(b).fingerprint, before, open_rows(folders).fingerprint]
    assert len(set(found)) == 4
    assert open_rows(a).fingerprint == found[0]
    (tmp_path / "f").rename(tmp_path / "g")
    assert open_rows(Folders(path=str(tmp_path / "g"))).fingerprint == found[3]


def test_hugging_face_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pictures = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})
    made = datasets.Dataset.from_dict({"image": [{"bytes": b"abc", "path": None}] * 3, "label": [0, 1, None]}, pictures)
    made.save_to_disk(str(tmp_path / "one"))
    rows = open_rows(Datasets(path=str(tmp_path / "one")))
    expected = [{"image": {"bytes": b"abc", "path": None}, "label": label} for label in ("no", "yes", None)]
    assert rows_of(rows) == expected
    assert open_rows(Datasets(path=str(tmp_path / "one"))).fingerprint == rows.fingerprint
    datasets.DatasetDict({"train": made, "test": made.select([1])}).save_to_disk(str(tmp_path / "two"))
    assert rows_of(open_rows(Datasets(path=str(tmp_path / "two"), split="test"))) == expected[1:2]
    assert "has several splits\n  they are: train, test" in failure(
        lambda: open_rows(Datasets(path=str(tmp_path / "two")))
    )
    manifest(tmp_path / "plain" / "train.jsonl", VALUES)
    assert rows_of(open_rows(Datasets(path=str(tmp_path / "plain"), split="train"))) == VALUES
    (tmp_path / "nothing").mkdir()
    assert "cannot be opened as a data set" in failure(lambda: open_rows(Datasets(path=str(tmp_path / "nothing"))))
    assert "is not a folder" in failure(lambda: open_rows(Datasets(path=str(tmp_path / "none"))))
