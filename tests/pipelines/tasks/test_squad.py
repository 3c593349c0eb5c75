import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.evaluate_task import evaluate_predictions
from atinuke.pipelines.scores.squad import normalised
from atinuke.pipelines.task import Task
from tests.pipelines.tasks.toys import vocabulary

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


def make(name="squad", **settings):
    return Task.named(name).model_validate({"name": name, **settings})


def document(context, answers, impossible=None, question="what is it?"):
    qa = {"id": "q1", "question": question, "answers": answers}
    if impossible is not None:
        qa["is_impossible"] = impossible
    return {"version": "x", "data": [{"title": "T", "paragraphs": [{"context": context, "qas": [qa]}]}]}


def write(tmp_path, value):
    file = tmp_path / "squad.json"
    file.write_text(json.dumps(value))
    return file


def load(tmp_path, task, *arguments, **named):
    return task.load(write(tmp_path, document(*arguments, **named)))[0]


def perfect(windows):
    """What a model that knows the answers gives: high scores where the labels are, and low ones elsewhere."""
    return [{"span": 10.0 * window.inputs["labels"]} for window in windows]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return Texts.load(vocabulary(tmp_path_factory.mktemp("vocabulary")))


@given(st.lists(st.sampled_from(LETTERS), min_size=1, max_size=60), st.data())
@settings(max_examples=80)
def test_who_knows_the_answer_finds_it_in_windows_of_any_size(texts, tmp_path_factory, words, data):
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 4, len(words) - 1)))
    context, start = " ".join(words), len(" ".join(words[:first])) + (first > 0)
    answer = " ".join(words[first : last + 1])
    room = data.draw(st.integers(11, 30))
    task = make(length=8 + room, stride=data.draw(st.integers(1, room - 5)))  # 5 in the question, 3 special tokens
    item = load(tmp_path_factory.mktemp("x"), task, context, [{"text": answer, "answer_start": start}])
    windows = task.encode(item, texts)
    assert max(len(window.inputs["input_ids"]) for window in windows) <= task.length
    counted = sum(int(window.known.best.sum()) for window in windows)
    assert counted == len(words)  # each token counts in one window
    shown = {tuple(place) for window in windows for place in window.known.offsets.tolist()}
    assert len(shown) == len(words)  # and none is left out
    assert task.decode(item, windows, perfect(windows))["text"] == answer


def test_a_window_without_the_answer_points_at_its_first_token(texts, tmp_path):
    context = " ".join(LETTERS)
    task = make(length=16, stride=4)
    windows = task.encode(load(tmp_path, task, context, [{"text": "a", "answer_start": 0}]), texts)
    assert windows[0].inputs["labels"].sum(0).tolist() == [1, 1]
    assert windows[0].inputs["labels"][0].tolist() == [0, 0]
    assert all(window.inputs["labels"][0].tolist() == [1, 1] for window in windows[1:])


def test_an_answer_within_a_token_is_the_whole_token(texts, tmp_path):
    task = make()
    item = load(tmp_path, task, "a good film", [{"text": "ilm", "answer_start": 8}])
    assert task.decode(item, w := task.encode(item, texts), perfect(w))["text"] == "film"


def test_spans_end_behind_their_beginning_and_are_not_too_long(texts, tmp_path):
    task = make(answer_length=3, n_best=5)
    item = load(tmp_path, task, "a b c d e f", [{"text": "a", "answer_start": 0}])
    (window,) = task.encode(item, texts)
    first = window.known.first
    scores = np.zeros((len(window.inputs["input_ids"]), 2))
    scores[first + 3, 0] = 5  # the best beginning is d, the best end is c, the next best b
    scores[first + 2, 1], scores[first + 1, 1] = 5, 4
    found = task.decode(item, [window], [{"span": scores}])
    assert len(found["n_best"]) == 5
    assert found["text"] not in ("d c", "")
    assert sum(found["n_best"].values()) == pytest.approx(1)
    assert all(len(text.split()) <= 3 for text in found["n_best"])
    assert list(found["n_best"].values()) == sorted(found["n_best"].values(), reverse=True)


def test_no_answer_is_said_where_it_is_likelier_than_the_threshold(texts, tmp_path):
    item = load(tmp_path, make("squad2"), "a b c", [], True)
    (window,) = make("squad2").encode(item, texts)
    assert window.inputs["labels"][0].tolist() == [1, 1]
    scores = np.zeros((len(window.inputs["input_ids"]), 2))
    scores[window.known.first] = 1.0
    scores[0] = 0.9  # nothing 1.8, the best span 2.0
    for threshold, text in ((0.5, "a"), (0.4, "")):
        found = make("squad2", no_answer=threshold).decode(item, [window], [{"span": scores}])
        assert found["text"] == text
        assert found["no_answer"] == pytest.approx(1 / (1 + np.exp(0.2)))
    scores = make("squad2").score([item], [{"text": "", "no_answer": 1.0}])
    assert [score.value for score in scores] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], r"squad\.json  has no list `data`\n  it is \[\]"),
        ({"data": None}, r"squad\.json  has no list `data`\n  it is null\n  to fix: give a file in SQuAD's format"),
        ({}, r"squad\.json  has no list `data`\n  it has: nothing"),
        (document(None, []), r"squad\.json data\[0\]\.paragraphs\[0\]  has no text `context`\n  it is null"),
        (document("a b", None), r"qas\[0\]  has no list `answers`\n  it is null"),
        ({"data": [{"title": "T"}]}, r"squad\.json data\[0\]  has no list `paragraphs`\n  it has: title"),
        (document("a b", [{"text": "b", "answer_start": 3}]), r"qas\[0\]  the answer `b` is outside the text"),
        (document("a b", [{"text": "b", "answer_start": -1}]), "the answer `b` is outside the text"),
        (document("a b", [{"text": "b", "answer_start": 0}]), "the answer `b` does not stand where it says"),
        (document("a b", [{"answer_start": 0}]), "has no text `text`"),
        (document("a b", []), "has no answer\n  to fix: use the task squad2"),
        ({"data": []}, "has no questions"),
    ],
)
def test_what_is_not_of_the_format_is_told_with_its_place(value, said, tmp_path):
    with pytest.raises(AtinukeError, match=said):
        make().load(write(tmp_path, value))


def test_one_id_twice_and_impossible_with_an_answer_are_refused(tmp_path):
    twice = document("a b", [{"text": "a", "answer_start": 0}])
    twice["data"] *= 2
    with pytest.raises(AtinukeError, match=r"data\[1\]\.paragraphs\[0\]\.qas\[0\]  has the id `q1` twice"):
        make().load(write(tmp_path, twice))
    with pytest.raises(AtinukeError, match="must have answers, or be impossible"):
        load(tmp_path, make("squad2"), "a b", [{"text": "a", "answer_start": 0}], True)
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(b"{}")[:-4])
    with pytest.raises(AtinukeError, match="is not a whole gzip file"):
        make().load(tmp_path / "x.json.gz")


def test_windows_that_leave_out_tokens_are_refused(texts, tmp_path):
    item = load(tmp_path, make(), "a b", [{"text": "a", "answer_start": 0}])
    with pytest.raises(AtinukeError, match="`stride` leaves out tokens\n  it is 10, but a window has 8"):
        make(length=16, stride=10).encode(item, texts)
    with pytest.raises(AtinukeError, match="`length` has no room for a text"):
        make(length=7).encode(item, texts)


def test_real_answers_survive_windows(shared, texts):
    task = make(length=320, stride=64, answer_length=200)
    items = task.load(shared / "data/squad/dev-v1.1-first24.json.gz")
    assert len(items) == 5696
    some = items[::60]
    predictions = []
    for item in some:
        windows = task.encode(item, texts)
        predictions.append(task.decode(item, windows, perfect(windows)))
    # Several right answers may be told as one span of the first beginning and the last end; all begin and end right.
    for item, prediction in zip(some, predictions, strict=True):
        begins = {answer.start for answer in item.gold}
        assert any(normalised(prediction["text"]).startswith(normalised(a.text)[:1]) for a in item.gold), begins
    single = task.load(shared / "data/squad/train-v1.1-subset.json.gz")[::60]
    found = [task.decode(item, w := task.encode(item, texts), perfect(w)) for item in single]
    assert {score.name: score.value for score in task.score(single, found)}["f1"] == pytest.approx(1, abs=0.02)


def test_published_predictions_score_what_was_published(shared, tmp_path):
    folder = shared / "data/squad"
    expected = json.loads((folder / "predictions/expected_scores.json").read_text())
    name = "logistic_regression"  # it lacks eight answers, which count 0
    found = evaluate_predictions(
        folder / f"predictions/{name}.json.gz", "squad", [folder / "dev-v1.1-first24.json.gz"], output=tmp_path / "out"
    )
    scores = {one.name: one.interval for one in found.scores}
    right = {key.replace("_", " "): value for key, value in expected[name].items()}
    for score in ("exact match", "f1"):
        assert 100 * scores[score].value == pytest.approx(right[score], abs=0.005)
        assert scores[score].low < scores[score].value < scores[score].high
    assert sum(part.items for part in found.slices if part.by == "question") == found.items == 5696


def test_predictions_of_other_questions_are_refused(tmp_path):
    data = write(tmp_path, document("a b", [{"text": "a", "answer_start": 0}]))
    said = tmp_path / "said.json"
    said.write_text('{"q2": "a"}')
    with pytest.raises(
        AtinukeError, match=r"said\.json  its ids are not those of the data\n  1 are not in the data: q2"
    ):
        evaluate_predictions(said, "squad", [data])
    with pytest.raises(AtinukeError, match="1 have no prediction: q1\n  1 are not in the data: q2"):
        evaluate_predictions(said, "squad2", [data])
    said.write_text('{"q1": 3}')
    with pytest.raises(AtinukeError, match="is not an object of texts by id"):
        evaluate_predictions(said, "squad", [data])
    said.write_text('{"q1": "The A."}')
    assert [one.interval.value for one in evaluate_predictions(said, "squad2", [data]).scores] == [1.0, 1.0]
    assert (tmp_path / "said-evaluation/evaluation.json").is_file()
