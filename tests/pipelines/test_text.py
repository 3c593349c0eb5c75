"""Reading documents: every format gives back what was written, and every damaged file one clear error."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.text import documents, find, fingerprint

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff")
TEXT = st.text(CHARACTERS).filter(lambda text: text != "" and not text.isspace())
law = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    sink = pyarrow.BufferOutputStream()
    writer.write_table(pyarrow.table(columns), sink, **options)
    return bytes(sink.getvalue())


def file(folder: Path, name: str, raw: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(raw, mtime=0) if name.endswith(".gz") else raw)
    return path


def failure(function: Callable[[], object]) -> str:
    with pytest.raises(AtinukeError) as caught:
        function()
    assert len(caught.value.mistakes) == 1
    return str(caught.value)


@pytest.mark.parametrize("zipped", ["", ".gz"])
@given(texts=st.lists(TEXT, min_size=1, max_size=5))
@law
def test_documents_come_back_as_they_were_written(tmp_path: Path, zipped: str, texts: list[str]) -> None:
    lines = "\n".join(json.dumps({"text": text, "id": 1}) for text in texts).encode()
    assert list(documents(file(tmp_path, "a.jsonl" + zipped, lines))) == texts
    assert list(documents(file(tmp_path, "a.txt" + zipped, texts[0].encode()))) == [texts[0]]
    columns = {"id": range(len(texts)), "text": texts}
    assert list(documents(file(tmp_path, "a.parquet" + zipped, parquet(columns, row_group_size=2)))) == texts


def test_json_lines_in_utf8_with_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    raw = '\ufeff{"body": "Ọjọ́"}\r\n\n{"body": "", "x": 1}\n{"body": " \\n"}\n{"body": "x\\ny"}'.encode()
    assert list(documents(file(tmp_path, "a.ndjson", raw), field="body")) == ["Ọjọ́", "x\ny"]


def test_paragraphs(tmp_path: Path) -> None:
    path = file(tmp_path, "a.md.gz", "\ufeff\n one\r\ntwo\r\n\r\n \t\nthree\n\n\n".encode())
    assert list(documents(path, split="paragraph")) == [" one\r\ntwo", "three"]
    assert list(documents(path, split="file")) == ["\n one\r\ntwo\r\n\r\n \t\nthree\n\n\n"]


def test_parquet_of_other_string_types(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    for kind in (pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())):
        columns = {"text": pyarrow.array(["a", "b", "a"], kind)}
        assert list(documents(file(tmp_path, "a.parquet", parquet(columns)))) == ["a", "b", "a"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.gz"])
def test_progress_adds_up_to_the_bytes_of_the_file(tmp_path: Path, name: str) -> None:
    raw = b"".join(b'{"text": "%d"}\n' % number for number in range(50_000))
    path = file(tmp_path, name, raw)
    counts: list[int] = []
    list(documents(path, advance=counts.append))
    assert sum(counts) == path.stat().st_size
    assert min(counts) >= 0
    if "jsonl" in name:
        assert max(counts) < sum(counts)


BROKEN = {
    ("a.txt", b""): "a.txt  has no text",
    ("a.txt", b" \n\t"): "a.txt  has no text",
    ("a.txt", b"abc \xff"): "a.txt  is not UTF-8 text\n  byte 0xff at offset 4",
    ("a.txt.gz", b"abc\xe9"): "a.txt.gz  is not UTF-8 text\n  byte 0xe9 at offset 3",
    ("a.txt", "é".encode("utf-16")): "byte 0xff at offset 0",
    ("a.jsonl", b""): "a.jsonl  has no text",
    ("a.jsonl", b'{"text": ""}'): "a.jsonl  has no text",
    ("a.jsonl", b'{"text": "a"}\n{"text": "b'): "a.jsonl:2  is not valid JSON\n  Unterminated string",
    ("a.jsonl", b'{"text": "a"}\n\n{"body": "b", "id": 3}'): 'a.jsonl:3  has no field `text`\n  it has: "body", "id"',
    ("a.jsonl", b'{"text": "a"}\n{}'): "a.jsonl:2  has no field `text`\n  it has: nothing",
    ("a.jsonl", b'{"text": "a"}\n{"text": null}'): "a.jsonl:2  field `text` is not a string but null",
    ("a.jsonl", b"[1, 2]"): "a.jsonl:1  is not an object but [1, 2]",
    ("a.jsonl", b'{"text": "ok"}\n{"text": "\xff"}'): "a.jsonl  is not UTF-8 text\n  byte 0xff at offset 25",
    ("a.jsonl", b'{"text": "\\ud83d!"}'): "a.jsonl:1  field `text` has \\ud83d, half a surrogate pair",
    ("a.jsonl", b'{"text": ' + b"[" * 200_000): "a.jsonl:1  is not valid JSON",
    ("a.jsonl", b'{"text": ' + b"9" * 5000 + b"}"): "a.jsonl:1  is not valid JSON",
    ("a.json", b'{"text": "a"}'): "a.json  .json files are not read",
    ("a.csv.gz", b"text\na"): "a.csv.gz  .csv files are not read",
    ("a.parquet", b"PAR1"): "a.parquet  is not a whole Parquet file",
    ("a.parquet", b""): "a.parquet  is not a whole Parquet file",
    ("a.parquet.gz", b"nothing"): "a.parquet.gz  is not a whole Parquet file",
}


@pytest.mark.parametrize(("name", "raw"), BROKEN)
def test_broken_files(tmp_path: Path, name: str, raw: bytes) -> None:
    path = file(tmp_path, name, raw)
    message = failure(lambda: list(documents(path)))
    assert message.startswith(str(tmp_path))
    assert BROKEN[name, raw] in message


def test_paragraphs_count_bytes_from_the_beginning_of_the_file(tmp_path: Path) -> None:
    path = file(tmp_path, "a.txt", b"\xef\xbb\xbfone\n\ntwo\n\xf0!\n")
    assert "byte 0xf0 at offset 12" in failure(lambda: list(documents(path, split="paragraph")))


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.parquet.gz"])
def test_broken_gzip(tmp_path: Path, name: str) -> None:
    zipped = gzip.compress(json.dumps({"text": "long " * 100 + str(list(range(5000)))}).encode())
    flipped = zipped[:200] + bytes(255 - byte for byte in zipped[200:220]) + zipped[220:]
    for raw in (zipped[:-20], zipped[: len(zipped) // 2], flipped, b"not gzip", zipped[:5]):
        (tmp_path / name).write_bytes(raw)
        assert f"{name}  is not a whole gzip file" in failure(lambda: list(documents(tmp_path / name)))


def test_broken_parquet(tmp_path: Path) -> None:
    whole = parquet({"text": ["a" * 1000] * 3000}, use_dictionary=False, compression="none")
    path = file(tmp_path, "a.parquet", whole[:-100])
    assert "is not a whole Parquet file" in failure(lambda: list(documents(path)))
    path = file(tmp_path, "a.parquet", parquet({"body": ["a"], "id": [1]}))
    assert "has no column `text`\n  it has: body, id" in failure(lambda: list(documents(path)))
    path = file(tmp_path, "a.parquet", parquet({"text": ["a", None]}))
    assert "row 2 of column `text` is not a string but None" in failure(lambda: list(documents(path)))
    path = file(tmp_path, "a.parquet", parquet({"text": [1, 2]}))
    assert "row 1 of column `text` is not a string but 1" in failure(lambda: list(documents(path)))


@given(name=st.sampled_from(["a.txt", "a.jsonl", "a.parquet", "a.jsonl.gz", "a.parquet.gz"]), raw=st.binary())
@law
def test_no_bytes_give_another_error(tmp_path: Path, name: str, raw: bytes) -> None:
    path = tmp_path / name
    for content in (raw, gzip.compress(raw), b'{"text": "' + raw, b"PAR1" + raw + b"PAR1"):
        path.write_bytes(content)
        for split in ("file", "paragraph"):
            try:
                found = list(documents(path, split=split))
            except AtinukeError:
                continue
            assert all(text.encode() for text in found)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    assert "nowhere.txt  cannot be read: No such file" in failure(lambda: list(documents(tmp_path / "nowhere.txt")))
    assert "cannot be read" in failure(lambda: list(documents(tmp_path)))
    assert "cannot be read" in failure(lambda: fingerprint(tmp_path / "nowhere.txt"))


def test_finding_files(tmp_path: Path) -> None:
    names = [
        "b/2.txt",
        "b/10.jsonl.gz",
        "a/1.parquet",
        "a/.hidden/x.txt",
        "a/.x.txt",
        "a/image.png",
        "a/code.py",
        "c.TXT",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(*sources: str) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in find([tmp_path / source for source in sources])]

    assert found(".") == ["a/1.parquet", "b/10.jsonl.gz", "b/2.txt", "c.TXT"]
    assert found("b", "b/2.txt", "b/*") == ["b/10.jsonl.gz", "b/2.txt"]
    assert found("**/*.txt", "a/code.py") == ["a/code.py", "b/2.txt"]
    assert "nothing*.txt  there is no such file" in failure(lambda: find([tmp_path, tmp_path / "nothing*.txt"]))
    (tmp_path / "empty").mkdir()
    assert "empty  holds no text" in failure(lambda: find([tmp_path / "empty"]))
    (tmp_path / "odd[1].txt").touch()
    assert found("odd[1].txt") == ["odd[1].txt"]


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(tmp_path, "a.parquet", parquet({"text": ["a"]}))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "pip install 'atinuke[parquet]'" in failure(lambda: list(documents(path)))
