"""Texts of a language: whatever the model would rather write, they belong to it."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import validate

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.generate import Continuation, generate
from atinuke.pipelines.sampling import Settings
from tests.pipelines import gpt2
from tests.pipelines.test_generate import Standin, cut_tokens

pytest.importorskip("llguidance", reason="needs atinuke[constrained]")

BYTES = gpt2.BYTES
LETTERS = st.text('abc"\\|.é𝄞\n /', min_size=1, max_size=5)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Ada", "Ọ̀rúnmìlà"]}, "ages": {"type": "array", "items": {"type": "integer"}}},
    "required": ["name", "ages"],
    "additionalProperties": False,
}


def written(prompts: Sequence[str] = ("a", "bcd"), most: int = 30, **values: Any) -> list[Continuation]:
    wanted = Settings.read(max_new_tokens=most, **values)
    return generate(Standin(), BYTES, prompts, wanted, 200)


def patterns() -> st.SearchStrategy[str]:
    """Patterns that mean the same to Python and Rust."""
    atoms = st.sampled_from(["a", "b", "é", "[a-c]", "[^a-y]", "[0-9]", "."])
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
            st.tuples(inner, st.sampled_from(["?", "*", "+", "{2,3}"])).map(lambda two: f"({two[0]}){two[1]}"),
        ),
        max_leaves=6,
    )


WAYS: list[dict[str, Any]] = [{"temperature": 0}, {"temperature": 1.3, "seed": 3}, {"temperature": 0, "beams": 3}]


@settings(max_examples=20)
@given(patterns(), st.sampled_from(WAYS))
def test_what_is_written_matches_the_pattern(pattern: str, way: dict[str, Any]) -> None:
    for found in written(regex=pattern, **way):
        matches = re.fullmatch(pattern, found.text) is not None and not found.text.endswith("\ufffd")
        assert matches == (found.reason != "unfinished")  # half a character at the end is no match
        assert matches or len(found.tokens) == 30, "only the budget may end it before"


@settings(max_examples=20)
@given(st.lists(LETTERS, min_size=1, max_size=4), st.sampled_from(WAYS))
def test_what_is_written_is_one_of_the_choices(choices: list[str], way: dict[str, Any]) -> None:
    for found in written(choices=tuple(choices), **way):
        assert found.text in choices
        assert found.reason == "end_of_text"


@settings(max_examples=15)
@given(st.lists(LETTERS, min_size=1, max_size=4, unique=True))
def test_a_search_with_room_for_all_choices_puts_them_in_their_order(choices: list[str]) -> None:
    model = Standin()
    [found] = written(["x"], choices=tuple(choices), temperature=0, beams=8, best=8, length_penalty=0.0)
    scores = {}
    for choice in choices:
        tokens = [*BYTES.encode("x" + choice), BYTES.end_of_text]
        output, _ = model.eval().step(torch.tensor([tokens]), torch.zeros(1, dtype=torch.int64), model.state(1, 99))
        likelihood = output.logits[0].log_softmax(-1)
        scores[choice] = sum(likelihood[at, token].item() for at, token in enumerate(tokens[1:]))
    texts = [found, *found.others]
    assert [one.text for one in texts] == sorted(scores, key=lambda choice: -scores[choice])
    assert [one.score for one in texts] == pytest.approx(sorted(scores.values(), reverse=True))


@pytest.mark.parametrize("way", WAYS)
def test_what_is_written_is_json_by_the_schema(way: dict[str, Any]) -> None:
    for found in written(schema=json.dumps(SCHEMA), most=120, **way):
        if found.reason == "unfinished":
            assert len(found.tokens) == 120
            continue
        value = json.loads(found.text)
        validate(value, SCHEMA)
        assert found.text == json.dumps(value, ensure_ascii=False)


def test_a_budget_that_ends_first_is_said_and_a_whole_text_that_could_go_on_is_not() -> None:
    for way in WAYS:
        assert {one.reason for one in written(regex="[xy]{9}", most=8, **way)} == {"unfinished"}
        assert {one.reason for one in written(regex="[xy]{8}z*", most=8, **way)} == {"length"}
        assert {one.text for one in written(regex="no more|n", most=3, **way)} <= {"n", "no "}
    assert {one.text for one in written(regex="no more|n", most=3, temperature=0, beams=4)} == {"n"}


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    for way in WAYS:
        together = written(["a", "bcd", "e"], regex="[a-z]+( [a-z]+)*", **way)
        assert together == [written([prompt], regex="[a-z]+( [a-z]+)*", **way)[0] for prompt in ("a", "bcd", "e")]


def test_a_real_model_with_more_logits_than_tokens() -> None:
    model = gpt2.pair()[1]
    [found] = generate(model, BYTES, ["The answer: "], Settings(choices=("yes", "no"), max_new_tokens=5), 128)
    assert found.text in ("yes", "no")


def test_a_tokenizer_that_cannot_write_it_says_so() -> None:
    tokenizer, _ = cut_tokens([b"ab", b"c"])
    with pytest.raises(AtinukeError, match="`regex` cannot be met\n  no text that this tokenizer can write"):
        generate(Standin(5), tokenizer, [">"], Settings(regex="d+", max_new_tokens=5), 128)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"regex": "(ab"}, "`regex` is no language that texts can be held to\n  .*unclosed group"),
        ({"regex": "a(?=b)"}, "look-around"),
        ({"regex": r"[^\s\S]"}, "`regex` cannot be met"),
        ({"schema": "{bad"}, "`schema` is not JSON\n.*\n  to fix: write a JSON Schema"),
        ({"schema": '{"a":' * 9999}, "`schema` is not JSON\n"),
        ({"schema": '{"const": NaN}'}, "`schema` is no language .*\n  expected value at line 1"),
        ({"schema": "[1]"}, "`schema` is not a JSON object\n  got '\\[1\\]'"),
        ({"schema": '{"type": "strin"}'}, "Invalid type: strin"),
        ({"schema": '{"type": "array", "uniqueItems": true}'}, 'Unimplemented keys: \\["uniqueItems"\\]'),
        ({"schema": '{"x-guidance": {"lenient": true}, "uniqueItems": true}'}, "Unimplemented keys"),
        ({"schema": '{"type": "integer", "minimum": 5, "maximum": 3}'}, "Unsatisfiable schema"),
        ({"schema": '{"$ref": "http://example.org/other"}'}, "not present"),
        ({"regex": "a", "choices": ("a",)}, "cannot be held to `regex` and `choices` at once"),
        ({"regex": "a", "stop": ("b",)}, "`stop` could end a text in the middle of `regex`"),
        ({"choices": "yes"}, "`choices`: must be a list of texts"),
        ({"choices": ("",)}, "`choices.0`: must be a text of at least 1 character"),
        ({"schema": {}}, "`schema`: must be a text"),
    ],
)
def test_what_cannot_be_held_to(values: dict[str, Any], message: str) -> None:
    with pytest.raises(AtinukeError) as caught:
        written(**values)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)
