"""Pairs of sentences: neighbours, half of them exchanged, the same for the same seed."""

from pathlib import Path

import pytest

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.rows import Rows, open_rows
from atinuke.pipelines.sentences import Sentences, split

COUNT = 400


def pairs(rows: Rows) -> list[dict[str, str]]:
    return [dict(rows[index]) for index in range(len(rows))]


def opened(folder: Path, **settings: object) -> Rows:
    return open_rows(Sentences.model_validate({"files": [str(folder / "*.txt")], **settings}))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(" ".join(f"{name} {number}." for number in range(COUNT + 1)))
    return tmp_path


def test_half_of_the_neighbours_are_exchanged(texts: Path) -> None:
    found = pairs(opened(texts))
    follows = {f"{name} {number}.": f"{name} {number + 1}." for name in "ab" for number in range(COUNT)}
    assert [pair["first"] for pair in found] == list(follows)
    for pair in found:
        assert (follows[pair["first"]] == pair["second"]) == (pair["next"] == "yes")
    exchanged = sum(pair["next"] == "no" for pair in found)
    assert abs(exchanged - COUNT) < 4 * (2 * COUNT / 4) ** 0.5
    assert pairs(opened(texts)) == found
    assert pairs(opened(texts, seed=1)) != found
    assert opened(texts).fingerprint == opened(texts).fingerprint != opened(texts, seed=1).fingerprint


def test_sentences_and_lines() -> None:
    text = "One. Two\nlines?  Three!\n\nFour"
    assert split(text, "sentence") == ["One.", "Two lines?", "Three!", "Four"]
    assert split(text, "line") == ["One. Two", "lines? Three!", "Four"]


@pytest.mark.parametrize("text", ["Alone.", "Same. Same."])
def test_too_few_sentences(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(AtinukeError, match="no document has two different sentences"):
        opened(tmp_path)
