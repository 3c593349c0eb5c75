"""Every row is looked at before training: nothing bad gets through, and nothing is left out in silence."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from rich.console import Console

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.examples import Examples, scan
from atinuke.pipelines.fields import Audio, Class, Field, Image, Text
from atinuke.pipelines.rows import Listed, Row
from tests.pipelines.media import RATE, picture, recording

FIELDS: dict[str, Field] = {
    "input_values": Audio(column="sound", rate=RATE, optional=True),
    "pixel_values": Image(column="image", size=(4, 4), optional=True),
    "labels": Class(column="label", classes=("a", "b")),
}


def rows(folder: Path, count: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "sound": recording(folder / f"{number}.wav", number, 100 + number).name,
            "image": picture(folder / f"{number}.png", number).name if number % 2 else None,
            "label": "ab"[number % 2],
        }
        for number in range(count)
    ]


def listed(values: list[dict[str, Any]], folder: Path, fingerprint: str = "x") -> Listed:
    return Listed([Row(value, f"list:{number}", folder) for number, value in enumerate(values)], fingerprint)


def looked(values: list[dict[str, Any]], folder: Path, bad: Literal["stop", "skip"] = "stop") -> tuple[Examples, str]:
    console = Console(file=io.StringIO(), width=80)
    found = scan(listed(values, folder), FIELDS, bad=bad, console=console)
    assert isinstance(console.file, io.StringIO)
    return found, console.file.getvalue()


def failure(function: Callable[[], object]) -> str:
    with pytest.raises(AtinukeError) as caught:
        function()
    return str(caught.value)


def spoil(values: list[dict[str, Any]], folder: Path) -> None:
    """Seven rows with eight mistakes."""
    (folder / "3.wav").unlink()
    (folder / "4.wav").unlink()
    (folder / "5.wav").write_bytes((folder / "5.wav").read_bytes()[:-9])
    (folder / "7.png").write_text("this is no picture")
    values[7]["label"] = "c"
    values[8]["label"] = None
    values[20]["label"] = "c"
    values[30]["sound"] = 5


def test_sound_rows_are_all_there(tmp_path: Path) -> None:
    found, said = looked(rows(tmp_path), tmp_path)
    assert len(found) == 40
    assert (said.strip(), found.bad) == ("", ())
    assert found.missing == {"pixel_values": 20}
    assert set(found[1]) == set(FIELDS)
    assert found[0]["pixel_values"] is None
    np.testing.assert_allclose(found.lengths, (100 + np.arange(40)) / 119.5)


def test_bad_rows_stop_the_run_with_counts_and_the_first_five(tmp_path: Path) -> None:
    values = rows(tmp_path)
    spoil(values, tmp_path)
    said = failure(lambda: looked(values, tmp_path))
    assert said.splitlines() == [
        "7 of 40 rows cannot be used",
        "  2 × input_values: there is no such file",
        "  2 × labels: is not one of the classes",
        "  1 × input_values: is truncated",
        "  1 × pixel_values: is not a picture, or has no pixels",
        "  1 × labels: is missing",
        "  1 × input_values: names no file",
        f"  list:3  input_values: {tmp_path / '3.wav'} there is no such file",
        f"  list:4  input_values: {tmp_path / '4.wav'} there is no such file",
        f"  list:5  input_values: {tmp_path / '5.wav'} is truncated (it ends before its header says)",
        f"  list:7  pixel_values: {tmp_path / '7.png'} is not a picture, or has no pixels",
        "  list:7  labels: is not one of the classes (got `c`; the classes: a, b)",
        "  and 3 more",
        "  to fix: mend them or take them out, or set `bad: skip`",
    ]


def test_bad_rows_are_left_out_where_that_is_the_rule_and_said(tmp_path: Path) -> None:
    values = rows(tmp_path)
    whole, _ = looked(values, tmp_path)
    spoil(values, tmp_path)
    found, said = looked(values, tmp_path, "skip")
    assert "7 of 40 rows cannot be used and are left out\n  2 × input_values: there is no such file" in said
    assert len(found) == 33
    assert len(found.bad) == 8
    kept = [number for number in range(40) if number not in (3, 4, 5, 7, 8, 20, 30)]
    for index, number in enumerate(kept):
        for name, value in whole[number].items():
            assert np.array_equal(found[index][name], value)
    samples = 100 + np.array(kept)
    np.testing.assert_allclose(found.lengths, samples / samples.mean())
    assert found.fingerprint != whole.fingerprint
    all_bad = [{"sound": None, "image": None, "label": "z"}] * 3
    assert "3 of 3 rows cannot be used" in failure(lambda: looked(all_bad, tmp_path, "skip"))


def test_a_column_that_no_row_has(tmp_path: Path) -> None:
    values = [{"sounds": None, "image": None, "label": "a"}] * 3
    said = failure(lambda: looked(values, tmp_path))
    assert said == (
        "input_values  no row has a column `sound`\n  the columns: image, label, sounds\n  to fix: use `sounds`"
    )


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    fields = FIELDS | {"mask": Text(column="label", length=9, mask="input_values_mask")}
    assert "two tensors of a batch would be called `input_values_mask`" in failure(
        lambda: scan(listed(rows(tmp_path, 2), tmp_path), fields)
    )


def test_a_file_that_changes_after_it_was_looked_at(tmp_path: Path) -> None:
    found = scan(listed(rows(tmp_path, 4), tmp_path), FIELDS, memory=0)
    (tmp_path / "2.wav").unlink()
    said = failure(lambda: found[2])
    assert said.startswith("row list:2 was sound before and is not now\n  ")
    assert "there is no such file" in said


def test_fingerprints_tell_examples_apart(tmp_path: Path) -> None:
    values = rows(tmp_path, 4)
    first = looked(values, tmp_path)[0].fingerprint
    assert looked(values, tmp_path)[0].fingerprint == first
    assert scan(listed(values, tmp_path, "y"), FIELDS).fingerprint != first
    assert (
        scan(listed(values, tmp_path), FIELDS | {"labels": Class(column="label", classes=("b", "a"))}).fingerprint
        != first
    )
    recording(tmp_path / "1.wav", 1, 500)
    assert looked(values, tmp_path)[0].fingerprint != first


def test_lengths_of_several_fields_count_alike(tmp_path: Path) -> None:
    texts = [{"sound": recording(tmp_path / f"{n}.wav", n, n * 100).name, "text": "x" * (4 - n)} for n in (1, 2, 3)]
    fields: dict[str, Field] = {"a": Audio(column="sound", rate=RATE), "b": Text(column="text", length=9)}
    np.testing.assert_allclose(scan(listed(texts, tmp_path), fields).lengths, [2.0, 2.0, 2.0])


def test_what_fits_into_memory_is_read_once(tmp_path: Path) -> None:
    source = listed(rows(tmp_path, 4), tmp_path)
    none = scan(source, FIELDS, memory=0)
    room = sum(value.nbytes for index in range(2) for value in none[index].values() if value is not None)
    for memory, held in ((room, 2), (room - 1, 1), (2**20, 4)):
        found = scan(source, FIELDS, memory=memory)
        for index in range(4):
            for name, value in found[index].items():
                np.testing.assert_array_equal(value, none[index][name])
        assert [found[index]["input_values"] is found[index]["input_values"] for index in range(4)] == [
            index < held for index in range(4)
        ]
