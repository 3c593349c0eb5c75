"""Strict YAML: plain data, places, and no way to blow up."""

import json
import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke.core.document import MAX_DEPTH, parse, read_text, scalar
from atinuke.core.errors import AtinukeError

PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1), inner, max_size=4),
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_json_is_read_as_itself(value: object) -> None:
    assert parse(json.dumps(value, ensure_ascii=False)).data == value


def test_every_value_has_its_place() -> None:
    document = parse("a: 1\nb:\n  c: [x, y]\n  d: {e: 2}\n", "f.yaml")
    assert document.data == {"a": 1, "b": {"c": ["x", "y"], "d": {"e": 2}}}
    assert document.place(("b", "c")).line == 3
    assert document.place(("b", "d", "e")).line == 4
    assert document.place(("b", "d", "missing")).line == 4
    assert str(document.place(("b", "c", 1))) == "f.yaml:3"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("1e-3", 0.001),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("012", 12),
        ("~", None),
        ("null", None),
        ("True", "True"),
        ("true", True),
        (".5", 0.5),
        ("1..64", "1..64"),
        ("2026-01-01", "2026-01-01"),
        ("1:30", "1:30"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3  key `a` is repeated\n  first given on line 1\n  to fix: keep one of them"),
        ("a: &x 1\nb: *x\n", "f.yaml:1  anchor `&x` is not allowed"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "f.yaml:1  tag `tag:yaml.org,2002:python/object/apply:os.system`",
        ),
        ("a: .nan\n", "f.yaml:1  `.nan` is not a finite number"),
        ("a: 1e999\n", "f.yaml:1  `1e999` is not a finite number"),
        ("a: " + "9" * 50, "f.yaml:1  a number of 50 digits is not allowed"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2  has more than one document"),
        ("{a: 1}: 2\n", "f.yaml:1  a key must be a plain word"),
        ("a: [1, 2\n", "f.yaml:2  is not valid YAML"),
        ("a: \t- b", "f.yaml:1  is not valid YAML"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"f.yaml:1  is nested deeper than {MAX_DEPTH} levels"),
    ],
)
def test_what_is_refused_is_told_with_its_line(text: str, message: str) -> None:
    assert "\n".join(map(str, parse(text, "f.yaml").mistakes)).startswith(message)


def test_a_yaml_bomb_stays_small() -> None:
    levels = "\n".join(f"{b}: [*{a}, *{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    document = parse("a: &a [x, x, x]\n" + levels)
    assert len(repr(document.data)) < 2_000
    assert document.mistakes


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=200), st.text(" \n\t-:{}[],&*!|>'\"%@`#ab1", max_size=60)))
def test_no_text_breaks_the_reader(text: str) -> None:
    document = parse(text)
    assert document.mistakes or _finite(document.data)


def _finite(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def test_the_result_is_that_of_pyyaml_where_both_agree_on_scalars() -> None:
    text = "a: {b: [1, two, 3.5], c: 'it''s'}\nd: |\n  text\n  more\ne: \"x\\ny\"\n"
    assert parse(text).data == yaml.safe_load(text)


def test_files_that_cannot_be_read(tmp_path) -> None:
    missing = tmp_path / "missing.yaml"
    with pytest.raises(AtinukeError, match=r"missing.yaml  cannot be read: No such file"):
        read_text(missing)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: Atinúkẹ́"[:10].encode("latin-1", "replace") + b"\xff")
    with pytest.raises(AtinukeError, match="is not UTF-8 text"):
        read_text(latin)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * 1_000_001)
    with pytest.raises(AtinukeError, match="is too large"):
        read_text(large)
    with pytest.raises(AtinukeError, match="cannot be read"):
        read_text(tmp_path)
