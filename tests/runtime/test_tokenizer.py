"""Tokens and texts where the package tokenizers is not installed, against those where it is."""

import json
from pydoc_data.topics import topics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.tokenizer import Tokenizer as Trained
from atinuke.runtime.tokenizer import Tokenizer

TEXTS = list(topics.values())[:20]
TRAINED = Trained.train(TEXTS, 1000, special_tokens=["<|mask|>"])


@pytest.fixture(scope="module")
def alone() -> Tokenizer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "tokenizers", None)
        return Tokenizer(TRAINED.content)


def test_the_same_without_the_library(alone: Tokenizer) -> None:
    assert (alone.engine, alone.special, alone.vocab_size) == ("tiktoken", TRAINED.special, TRAINED.vocab_size)
    assert alone.fingerprint == TRAINED.fingerprint
    for text in [*TEXTS, "Ọ̀rọ̀ yìí <|mask|>", ""]:
        assert alone.encode(text) == TRAINED._inner.encode(text, add_special_tokens=False).ids


@given(st.lists(st.integers(0, 1005)))
def test_any_tokens_become_the_text_that_the_library_makes_of_them(tokens: list[int]) -> None:
    expected = TRAINED._inner.decode(tokens)
    assert TRAINED.decode(tokens) == expected
    stream = TRAINED.stream()
    assert "".join(map(stream.feed, tokens)) + stream.finish() == expected


def test_what_only_the_library_reads_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads(TRAINED.content)
    config["pre_tokenizer"]["add_prefix_space"] = True
    assert Tokenizer(json.dumps(config)).engine.startswith("tokenizers, because")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(AtinukeError, match=r"does not split text as GPT-2(.|\n)*atinuke\[tokenizers\]"):
        Tokenizer(json.dumps(config))
    for damaged in ('{"model": 3}', "[]", '{"model": {"vocab": {"a": 0}}, "added_tokens": [3]}'):
        with pytest.raises(AtinukeError, match=r"is not a tokenizer\.json"):
            Tokenizer(damaged)


def test_a_word_that_only_the_library_encodes(alone: Tokenizer) -> None:
    with pytest.raises(AtinukeError, match="too long"):
        alone.encode("a" * 9000)


def test_files_with_merges_as_texts_are_read_alike() -> None:
    config = json.loads(TRAINED.content)
    config["model"]["merges"] = [" ".join(pair) for pair in config["model"]["merges"]]
    older = Tokenizer(json.dumps(config))
    assert older.engine == "tiktoken"
    assert older.encode(TEXTS[0]) == TRAINED.encode(TEXTS[0])
