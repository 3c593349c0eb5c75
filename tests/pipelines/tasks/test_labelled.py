import gzip
import json

import numpy as np
import pytest

from atinuke.core.errors import AtinukeError
from atinuke.core.registry import Registry
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.task import Task
from tests.pipelines.tasks.toys import table, vocabulary

GLUE = {
    "cola": ("CoLA", "CoLA/{}.tsv.gz", {"matthews", "accuracy"}),
    "sst2": ("SST-2", "SST-2/{}.tsv.gz", {"accuracy"}),
    "mrpc": ("MRPC", "MRPC/{}.tsv.gz", {"f1", "accuracy"}),
    "stsb": ("STS-B", "STS-B/{}.tsv.gz", {"pearson", "spearman"}),
    "rte": ("RTE", "RTE/{}.tsv.gz", {"accuracy"}),
    "wnli": ("WNLI", "WNLI/{}.tsv.gz", {"accuracy"}),
}
ROWS = {"cola": (7601, 1043), "sst2": (67343, 872), "mrpc": (3576, 500), "stsb": (5749, 1500)}
ROWS |= {"rte": (2241, 277), "wnli": (571, 71)}

# The columns of the files that GLUE gives, and a row of each: those with answers, and those to be answered.
OFFICIAL = {
    "cola": (None, ("gj04", 1, "", "It is good."), ("index", "sentence")),
    "sst2": (("sentence", "label"), ("good film", 1), ("index", "sentence")),
    "mrpc": (
        ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        (1, 10, 11, "a b", "b a"),
        ("index", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    ),
    "qqp": (
        ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
        (7, 1, 2, "a?", "b?", 0),
        ("id", "question1", "question2"),
    ),
    "stsb": (
        ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score"),
        (0, "news", "f", 2012, 1, "none", "none", "a b", "b a", "4.200"),
        ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2"),
    ),
    "mnli": (
        ("index", "promptID", "pairID", "genre", "sentence1", "sentence2", "label1", "gold_label"),
        (0, 1, "1n", "slate", "a b", "b a", "neutral", "neutral"),
        ("index", "promptID", "pairID", "genre", "sentence1", "sentence2"),
    ),
    "qnli": (
        ("index", "question", "sentence", "label"),
        (0, "a?", "b.", "not_entailment"),
        ("index", "question", "sentence"),
    ),
    "rte": (
        ("index", "sentence1", "sentence2", "label"),
        (0, "a", "b", "entailment"),
        ("index", "sentence1", "sentence2"),
    ),
    "wnli": (("index", "sentence1", "sentence2", "label"), (0, "a", "b", 1), ("index", "sentence1", "sentence2")),
}


def make(name, **settings):
    return Task.named(name).model_validate({"name": name, **settings})


@pytest.mark.parametrize("name", OFFICIAL)
def test_glues_own_files_with_and_without_answers(name, tmp_path):
    header, row, unanswered = OFFICIAL[name]
    file = table(tmp_path / "train.tsv", *([header] if header else []), row)
    (item,) = make(name).load(file)
    assert item.gold is not None
    cells = ["9", *(["x"] * (len(unanswered) - 1))]
    (asked,) = make(name).load(table(tmp_path / "test.tsv", unanswered, cells))
    assert asked.gold is None
    assert asked.id == "9"


def test_all_nine_are_there():
    from atinuke.pipelines.scores.glue import AVERAGED

    assert set(OFFICIAL) == set(AVERAGED)
    assert set(OFFICIAL) <= set(Registry().tasks())


@pytest.mark.parametrize("name", GLUE)
def test_real_files(name, shared):
    _, path, scores = GLUE[name]
    task = make(name)
    dev = task.load(shared / "data/glue" / path.format("dev"))
    assert len(dev) == ROWS[name][1]
    if name != "sst2":
        assert len(task.load(shared / "data/glue" / path.format("train"))) == ROWS[name][0]
    answers = [item.gold if name == "stsb" else list(task.labels.values())[item.gold] for item in dev]
    right = {score.name: score.value for score in task.score(dev, answers)}
    assert right.keys() == scores
    assert all(value == pytest.approx(1) for value in right.values())


def test_the_majority_on_real_rows_scores_what_its_readme_says(shared):
    task = make("mrpc")
    dev = task.load(shared / "data/glue/MRPC/dev.tsv.gz")
    found = {score.name: score.value for score in task.score(dev, ["1"] * len(dev))}
    assert found["accuracy"] == pytest.approx(0.692)
    assert found["f1"] == pytest.approx(2 * 0.692 / 1.692)


def test_inference_files(shared, tmp_path):
    assert len(make("snli").load(shared / "data/snli/dev_part.jsonl.gz")) == 7958
    assert len(make("anli").load(shared / "data/anli/dev_r1.jsonl.gz")) == 1000
    assert len(make("mnli").load(shared / "data/glue/MNLI/dev_matched_part.jsonl.gz")) == 7725
    breaking = make("snli", slices=["category"]).load(shared / "data/snli/breaking_nli.jsonl.gz")
    assert "antonyms" in {item.slices["category"] for item in breaking}


def test_official_snli_leaves_out_what_nobody_agreed_on_and_anli_has_letters(tmp_path):
    rows = [{"gold_label": label, "sentence1": "a", "sentence2": "b", "pairID": label} for label in ("neutral", "-")]
    file = tmp_path / "snli.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [item.id for item in make("snli").load(file)] == ["neutral"]
    file.write_text(json.dumps({"uid": "u", "context": "a", "hypothesis": "b", "label": "c"}) + "\n")
    assert [item.gold for item in make("anli").load(file)] == [2]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("text", "label"), ("a", 1)], r"x\.tsv:1  has other columns than sst2\n  its columns: text, label\n"),
        ([("sentence", "label"), ("a", 2)], r"x\.tsv:2  `2` is no label of sst2\n  expected: 0, 1"),
        ([("sentence", "label"), ("a", 1, 1)], r"x\.tsv:2  has 3 cells, where sst2 has 2 columns"),
        ([("sentence", "sentence"), ("a", 1)], r"x\.tsv:1  has a column twice"),
        ([("index", "sentence"), (1, "a"), (1, "b")], r"x\.tsv:3  has the id `1` twice\n  also in line 2"),
        ([("sentence", "label")], r"x\.tsv  has no rows"),
    ],
)  # fmt: skip
def test_what_is_not_of_the_format_is_told_with_its_line(rows, said, tmp_path):
    with pytest.raises(AtinukeError, match=said):
        make("sst2").load(table(tmp_path / "x.tsv", *rows))


def test_other_files_and_values_are_refused(tmp_path):
    with pytest.raises(AtinukeError, match=r"is not a \.tsv or"):
        make("sst2").load(table(tmp_path / "x.xml", ("sentence", "label")))
    with pytest.raises(AtinukeError, match=r"x\.tsv:2  `6\.0` is no number from 0 to 5"):
        make("stsb").load(table(tmp_path / "x.tsv", ("sentence1", "sentence2", "score"), ("a", "b", "6.0")))
    with pytest.raises(AtinukeError, match=r"x\.tsv:2  `nan` is no number from 0 to 5"):
        make("stsb").load(table(tmp_path / "x.tsv", ("sentence1", "sentence2", "score"), ("a", "b", "nan")))
    with pytest.raises(AtinukeError, match=r"x\.tsv:2  has no column `genre`"):
        make("sst2", slices=["genre"]).load(table(tmp_path / "x.tsv", ("sentence", "label"), ("a", 1)))
    with gzip.open(tmp_path / "y.jsonl.gz", "wt") as file:
        file.write('{"premise": 3, "hypothesis": "b", "label": "neutral"}\n')
    with pytest.raises(AtinukeError, match=r"y\.jsonl\.gz:1  `premise` is not a text"):
        make("snli").load(tmp_path / "y.jsonl.gz")


def test_pairs_are_cut_to_the_length_and_keep_their_ends(tmp_path):
    texts = Texts.load(vocabulary(tmp_path))
    task = make("rte", length=9)
    (item,) = task.load(table(tmp_path / "x.tsv", *OFFICIAL["rte"][:1], (0, "a b c d e f", "good film", "entailment")))
    (window,) = task.encode(item, texts)
    names = [texts.token(name) for name in ["[CLS]", "a", "b", "c", "d", "[SEP]", "good", "film", "[SEP]"]]
    assert window.inputs["input_ids"].tolist() == names
    assert window.inputs["segment_ids"].tolist() == [0] * 6 + [1] * 3
    assert int(window.inputs["labels"]) == 0
    with pytest.raises(AtinukeError, match="`length` has no room for a text"):
        make("rte", length=4).encode(item, texts)


def test_a_tokenizer_that_puts_nothing_between_needs_a_word_for_it(tmp_path):
    import tokenizers

    inner = tokenizers.Tokenizer.from_str(Texts.load(vocabulary(tmp_path))._inner.to_str())
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    texts = Texts(inner.to_str(), "tokenizer.json")
    (item,) = make("rte").load(table(tmp_path / "x.tsv", *OFFICIAL["rte"][:2]))
    with pytest.raises(AtinukeError, match=r"tokenizer\.json  the tokenizer puts nothing between two texts"):
        make("rte").encode(item, texts)
    (window,) = make("rte", between="[SEP]").encode(item, texts)
    assert window.inputs["input_ids"].tolist() == [texts.token(name) for name in ("a", "[SEP]", "b")]


@pytest.mark.parametrize(
    ("name", "prediction", "file", "line"),
    [
        ("cola", "1", "CoLA.tsv", "9\t1"),
        ("rte", "not_entailment", "RTE.tsv", "9\tnot_entailment"),
        ("stsb", 5.31234, "STS-B.tsv", "9\t5.000"),
        ("stsb", 1.23456, "STS-B.tsv", "9\t1.235"),
        ("mnli", "neutral", "MNLI-m.tsv", "9\tneutral"),
    ],
)
def test_submissions_are_as_the_leaderboard_takes_them(name, prediction, file, line, tmp_path):
    unanswered = OFFICIAL[name][2]
    task = make(name)
    items = task.load(table(tmp_path / "test.tsv", unanswered, ["9", *(["x"] * (len(unanswered) - 1))]))
    assert task.files(items, [prediction]) == {file: f"index\tprediction\n{line}\n"}


def test_diagnostics_are_answered_by_mnli(tmp_path):
    task = make("mnli", part="ax")
    items = task.load(table(tmp_path / "AX.tsv", ("index", "sentence1", "sentence2"), (0, "a", "b")))
    assert list(task.files(items, ["neutral"])) == ["AX.tsv"]


def test_the_answer_is_the_highest_score(tmp_path):
    task = make("snli")
    assert task.decode(None, [], [{"logits": np.array([0.1, 2.0, 1.0])}]) == "neutral"


def test_a_submission_is_read_back(tmp_path):
    task = make("mrpc")
    items = task.load(table(tmp_path / "dev.tsv", *OFFICIAL["mrpc"][:2], (0, 11, 12, "c", "d")))
    file = tmp_path / "MRPC.tsv"
    file.write_text(task.files(items, ["1", "0"])["MRPC.tsv"])
    assert task.predictions(file, items) == ["1", "0"]
    file.write_text("index\tprediction\n0\t1\n5\t0\n")
    with pytest.raises(AtinukeError, match="1 have no prediction: 1\n  1 are not in the data: 5"):
        task.predictions(file, items)
    file.write_text("index\tprediction\n0\tyes\n")
    with pytest.raises(AtinukeError, match=r"MRPC\.tsv:2  `yes` is no label of mrpc"):
        task.predictions(file, items)
    file.write_text("id\tprediction\n0\t1\n")
    with pytest.raises(AtinukeError, match=r"MRPC\.tsv:1  has other columns than a file of predictions"):
        task.predictions(file, items)
