"""What each kind of field makes of a row, and what it refuses."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import TypeAdapter, ValidationError

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.fields import Audio, Class, Classes, Field, Image, Number, Text, decode, mask_name, with_classes
from atinuke.pipelines.rows import Listed, Row
from tests.pipelines.corpora import trained
from tests.pipelines.media import RATE, picture, recording

FOLDER = Path("/nowhere")
DIGITS = Class(column="c", classes=("zero", "one", "two"))

SEVERAL = Classes(column="c", classes=("a", "b"))


def row(values: dict[str, Any], folder: Path = FOLDER) -> Row:
    return Row(values, "row 1", folder)


def failure(function: Callable[[], object]) -> str:
    with pytest.raises(AtinukeError) as caught:
        function()
    return str(caught.value)


def test_sounds_by_path_by_bytes_and_as_hugging_face_has_them(tmp_path: Path) -> None:
    path = recording(tmp_path / "deep" / "a.wav", 1, 800)
    field = Audio(column="c", rate=RATE)
    expected, _ = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float32")
    for value in ("deep/a.wav", str(path), path.read_bytes(), {"bytes": None, "path": str(path)}):
        found = decode(field, row({"c": value}, tmp_path))
        assert found is not None
        assert np.array_equal(found, expected)
    assert "there is no such file" in failure(lambda: decode(field, row({"c": "b.wav"}, tmp_path)))
    assert "is longer than 0.05 s" in failure(
        lambda: decode(field.model_copy(update={"longest": 0.05}), row({"c": str(path)}))
    )
    assert "names no file\n  got 3" in failure(lambda: decode(field, row({"c": 3})))


def test_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    found = decode(Image(column="c", size=(4, 5), channels=1), row({"c": "a.png"}, tmp_path))
    assert found is not None
    assert (found.shape, found.dtype) == ((1, 4, 5), np.uint8)


def test_texts_as_tokens_and_as_bytes() -> None:
    text = "Bẹ́ẹ̀ni ni"
    plain = decode(Text(column="c", length=100), row({"c": text}))
    assert plain is not None
    assert bytes(plain.tolist()).decode() == text
    tokens = decode(Text(column="c", length=100), row({"c": text}), trained())
    assert tokens is not None
    assert tokens.tolist() == trained().encode(text)
    assert plain.dtype == tokens.dtype == np.int64
    short = Text(column="c", length=4)
    assert "is too long\n  14 tokens; at most 4" in failure(lambda: decode(short, row({"c": "12345678901234"})))
    cut = decode(short.model_copy(update={"cut": True}), row({"c": "123456"}))
    assert cut is not None
    assert cut.tolist() == list(b"1234")
    assert "is an empty text" in failure(lambda: decode(short, row({"c": ""})))
    assert "is not a text\n  got 5" in failure(lambda: decode(short, row({"c": 5})))
    assert "half a surrogate pair" in failure(lambda: decode(short, row({"c": "\ud800"})))


def test_classes() -> None:
    assert [int(decode(DIGITS, row({"c": name})) or 0) for name in ("zero", "one", "two")] == [0, 1, 2]
    numbered = Class(column="c", classes=("3", "7"))
    assert int(decode(numbered, row({"c": 7})) or 0) == int(decode(numbered, row({"c": "7"})) or 0) == 1
    said = failure(lambda: decode(DIGITS, row({"c": "on"})))
    assert said == "is not one of the classes\n  got `on`\n  the classes: zero, one, two\n  to fix: use `one`"
    for value in (True, 1.0, [1]):
        assert "is not one of the classes" in failure(lambda value=value: decode(DIGITS, row({"c": value})))


def test_several_classes() -> None:
    field = Classes(column="c", classes=("zero", "one", "10"))
    for value in ("one zero  one\t10\n", ["one", "zero", "one", 10]):
        found = decode(field, row({"c": value}))
        assert found is not None
        assert (found.dtype, found.tolist()) == (np.int64, [1, 0, 1, 2])
    said = failure(lambda: decode(field, row({"c": "one on"})))
    assert said == "is not one of the classes\n  got `on`\n  the classes: zero, one, 10\n  to fix: use `one`"
    assert "is neither a text of several classes nor a list of them\n  got 7" in failure(
        lambda: decode(field, row({"c": 7}))
    )
    for empty in (" ", []):
        assert "names no class" in failure(lambda empty=empty: decode(field, row({"c": empty})))
    rows = Listed([row({"c": value}) for value in ("b a", ["d", "b"], None, 3)], "")
    found_ = with_classes({"x": Classes(column="c")}, rows)["x"]
    assert isinstance(found_, Classes)
    assert found_.classes == ("a", "b", "d")


def test_numbers() -> None:
    field = Number(column="c")
    for value in (2.5, "2.5", " 2.5e0 "):
        found = decode(field, row({"c": value}))
        assert found is not None
        assert (found.dtype, float(found)) == (np.float32, 2.5)
    for value in (float("nan"), "inf", 1e39, "two", True, 10**400, b"1"):
        assert "is not a finite number" in failure(lambda value=value: decode(field, row({"c": value})))


@pytest.mark.parametrize(
    "field", [Audio(column="c", rate=1), Image(column="c", size=(1, 1)), Text(column="c", length=1), DIGITS, SEVERAL]
)
def test_only_what_is_optional_may_be_missing(field: Field) -> None:
    for values in ({"c": None, "d": 1}, {"d": 1}):
        assert failure(lambda values=values: decode(field, row(values))) == "is missing\n  the row has: d"
        assert decode(field.model_copy(update={"optional": True}), row(values)) is None
    assert "is missing" in failure(lambda: decode(Number(column="c"), row({"c": None})))


def test_classes_are_found_in_the_training_rows() -> None:
    def found(*values: Any) -> tuple[str, ...] | None:
        rows = Listed([row({"c": value}) for value in values], "")
        field = with_classes({"x": Class(column="c"), "y": DIGITS, "z": Number(column="d")}, rows)["x"]
        assert isinstance(field, Class)
        return field.classes

    assert found("b", "a", "c", "a", None) == ("a", "b", "c")
    assert found(10, 9, "2") == ("2", "9", "10")
    assert found("10", "9", "x") == ("10", "9", "x")
    assert found("1", "01", "001") == ("001", "01", "1")
    assert "fewer than two classes\n  found in the column `c`: a" in failure(lambda: found("a", None, 2.5))
    assert with_classes({"y": DIGITS}, Listed([], "")) == {"y": DIGITS}


def test_masks_are_called_like_their_field_or_otherwise() -> None:
    assert mask_name("input_ids", Text(column="c", length=1)) == "input_ids_mask"
    assert mask_name("input_ids", Text(column="c", length=1, mask="attention_mask")) == "attention_mask"
    assert mask_name("x", Audio(column="c", rate=1)) == "x_mask"
    assert mask_name("x", Image(column="c", size=(1, 1))) is None
    assert mask_name("x", Image(column="c", size=(1, 1), optional=True)) == "x_mask"
    assert mask_name("x", DIGITS) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "audio", "column": "c"},
        {"name": "audio", "column": "c", "rate": 0},
        {"name": "image", "column": "c", "size": [0, 4]},
        {"name": "image", "column": "c", "size": [4, 4], "channels": 4},
        {"name": "text", "column": "c", "length": "4"},
        {"name": "class", "column": "c", "classes": ["one"]},
        {"name": "number", "column": "c", "optional": True},
        {"name": "video", "column": "c"},
    ],
)
def test_sections_are_strict(wrong: dict[str, Any]) -> None:
    adapter: TypeAdapter[Field] = TypeAdapter(Field)
    with pytest.raises(ValidationError):
        adapter.validate_python(wrong)
    assert adapter.validate_python({"name": "image", "column": "c", "size": [4, 5]}) == Image(column="c", size=(4, 5))


@pytest.mark.parametrize(("length", "kept"), [(99, (6, 3)), (9, (5, 3)), (7, (3, 3)), (6, (2, 3)), (3, (1, 1))])
def test_pairs_of_texts_and_their_segments(length: int, kept: tuple[int, int]) -> None:
    tokenizer = trained()
    texts = {"a": "QQQQQQ", "b": "ZZZ"}
    first, second = (tokenizer.encode(text)[:count] for text, count in zip(texts.values(), kept, strict=True))
    assert (len(tokenizer.encode("QQQQQQ")), len(tokenizer.encode("ZZZ"))) == (6, 3)
    field = Text(column="a", pair="b", length=length, cut=True)
    found = decode(field, row(texts), tokenizer)
    assert found is not None
    assert found.dtype == np.int64
    assert found[0].tolist() == [*first, tokenizer.end_of_text, *second]
    assert found[1].tolist() == [0] * (kept[0] + 1) + [1] * kept[1]


def test_what_a_pair_needs() -> None:
    field = Text(column="a", pair="b", length=9)
    assert "a pair of texts needs a tokenizer" in failure(lambda: decode(field, row({"a": "x", "b": "y"})))
    assert failure(lambda: decode(field, row({"a": "x", "b": None}))) == "is missing\n  the row has: a"
    assert "is too long\n  10 tokens; at most 9" in failure(
        lambda: decode(field, row({"a": "QQQQQQ", "b": "ZZZ"}), trained())
    )
    alone = decode(Text(column="a", segments="s", length=9), row({"a": "xy"}))
    assert alone is not None
    assert alone.tolist() == [[120, 121], [0, 0]]
