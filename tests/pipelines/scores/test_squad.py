"""SQuAD's scores: the published ones of five systems, and what the official scripts say of odd answers."""

import gzip
import json
from pathlib import Path

import pytest

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.scores.squad import normalised, squad1, squad2, token_f1

SYSTEMS = ("bert_ensemble", "logistic_regression", "match_lstm_ensemble", "slqa_plus_ensemble", "rnet_plus_ensemble")


@pytest.fixture(scope="module")
def questions(shared: Path) -> dict[str, list[str]]:
    with gzip.open(shared / "data/squad/dev-v1.1-first24.json.gz", "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    every = [qa for article in articles for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
    return {qa["id"]: [answer["text"] for answer in qa["answers"]] for qa in every}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_scores_of_published_systems(system: str, questions: dict[str, list[str]], shared: Path) -> None:
    folder = shared / "data/squad/predictions"
    with gzip.open(folder / f"{system}.json.gz", "rt", encoding="utf-8") as file:
        said = json.load(file)
    expected = json.loads((folder / "expected_scores.json").read_text())[system]
    exact, f1 = squad1(questions, said)
    assert 100 * exact.value == pytest.approx(expected["exact_match"], abs=1e-9)
    assert 100 * f1.value == pytest.approx(expected["f1"], abs=1e-9)


def test_texts_are_normalised() -> None:
    assert normalised("  The U.S.  an-apple, A 'b' ") == "us anapple b"
    assert normalised("theatre another ana") == "theatre another ana"
    assert token_f1("a b c", "c the b b") == pytest.approx(2 * 2 / (2 + 3))


def test_the_versions_differ_where_nothing_is_left_of_an_answer() -> None:
    right, said = {"q": ["the"]}, {"q": "a"}
    exact, f1 = squad1(right, said)
    assert (exact.value, f1.value) == (1, 0)
    exact, f1 = squad2(right, said).scores
    assert (exact.value, f1.value) == (1, 1)


# What evaluate-v2.0.py prints with --na-prob-file and a threshold of 0.5 for these.
RIGHT = {"a": ["The cat", "a dog"], "b": [], "c": ["42"], "d": [], "e": ["one two three"]}
SAID = {"a": "cat", "b": "cat", "c": "", "d": "", "e": "one two"}
CHANCE = {"a": 0.1, "b": 0.2, "c": 0.7, "d": 0.9, "e": 0.4}
OFFICIAL = {"exact": [40.0, 33.333333333333336, 50.0], "f1": [56.0, 60.0, 50.0], "best": [60.0, 0.1, 60.0, 0.1]}


def test_version_2_with_a_threshold() -> None:
    found = squad2(RIGHT, SAID, CHANCE, 0.5)
    assert found.answered
    assert found.unanswerable
    assert found.best_exact
    assert found.best_f1
    told = {
        "exact": [100 * scores[0].value for scores in (found.scores, found.answered, found.unanswerable)],
        "f1": [100 * scores[1].value for scores in (found.scores, found.answered, found.unanswerable)],
        "best": [100 * found.best_exact.value, found.best_exact.at, 100 * found.best_f1.value, found.best_f1.at],
    }
    assert told == {name: pytest.approx(values) for name, values in OFFICIAL.items()}
    assert squad2({"a": ["x"]}, {"a": "x"}).unanswerable is None


def test_answers_left_out_are_named() -> None:
    with pytest.raises(AtinukeError, match=r"2 questions have no prediction\n.*the first is b"):
        squad2(RIGHT, {"a": "", "c": "", "d": ""})
    with pytest.raises(AtinukeError, match="1 questions have no probability of no answer"):
        squad2({"a": []}, {"a": ""}, {})
    assert [score.value for score in squad1({"a": ["x"], "b": ["y"]}, {"a": "x"})] == [0.5, 0.5]
