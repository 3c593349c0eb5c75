"""Semantic roles: the three formats, the search for tags, and from a file to a score."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from atinuke.cli import app
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.scores.roles import spans
from atinuke.pipelines.task import Task
from atinuke.pipelines.tasks import srl
from atinuke.pipelines.tasks.propositions import propositions
from atinuke.pipelines.train import start
from tests.pipelines.tasks.toys import recipe, vocabulary

CONLL_2012 = """#begin document (bc/x); part 000
bc/x 0 0 a DT * - - - - * (ARG0*) * -
bc/x 0 1 film VB * film 01 - - * (V*) * -
bc/x 0 2 is NN * - - - - * (ARG1* (ARGM-TMP*) -
bc/x 0 3 very VB * be 02 - - * *) (V*) -

bc/x 0 0 no NN * - - - - * -
#end document
"""
CONLL_2005 = """
a DT * * * - - (A0*) *
film VB * * * - film (V*) *
is NN * * * - - (A1* (AM-TMP*)
very VB * * * - be *) (V*)
"""
UNIVERSAL = """# text = a film is very
1\ta\t_\t_\t_\t_\t2\t_\t_\t_\t_\tARG0\t_
1-2\tafilm\t_\t_\t_\t_\t_\t_\t_\t_\t\t\t
2\tfilm\t_\t_\t_\t_\t0\t_\t_\t_\tfilm.01\tV\t_
3\tis\t_\t_\t_\t_\t2\t_\t_\t_\t_\t_\tARGM-TMP
3.1\tgone\t_\t_\t_\t_\t_\t_\t_\t_\t\t\t
4\tvery\t_\t_\t_\t_\t2\t_\t_\t_\tbe.02\tARG1\tV

# text = no
1\tno\t_\t_\t_\t_\t0\t_\t_\t_\t_\t
"""


def write(folder: Path, content: str, name: str) -> Path:
    file = folder / name
    file.write_text(content)
    return file


def task(**settings: object) -> srl.SRL:
    found = Task.named("srl").model_validate({"name": "srl", **settings})
    assert isinstance(found, srl.SRL)
    return found


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Texts:
    return Texts.load(vocabulary(tmp_path_factory.mktemp("vocabulary")))


@pytest.mark.parametrize(
    ("content", "name", "right"),
    [
        (CONLL_2012, "x.conll", [[(0, 1, "ARG0"), (1, 2, "V"), (2, 4, "ARG1")], [(2, 3, "ARGM-TMP"), (3, 4, "V")]]),
        (CONLL_2005, "x.props", [[(0, 1, "A0"), (1, 2, "V"), (2, 4, "A1")], [(2, 3, "AM-TMP"), (3, 4, "V")]]),
        (UNIVERSAL, "x.conllu", [[(0, 1, "ARG0"), (1, 2, "V"), (3, 4, "ARG1")], [(2, 3, "ARGM-TMP"), (3, 4, "V")]]),
    ],
)
def test_the_formats_say_the_same(tmp_path: Path, content: str, name: str, right: list[object]) -> None:
    found = list(propositions(write(tmp_path, content, name)))
    assert [list(one.right) for one in found] == right
    assert [(one.given.words, one.given.predicate) for one in found] == [
        (("a", "film", "is", "very"), i) for i in (1, 3)
    ]
    assert [one.given.lemma.partition(".")[0] for one in found] == ["film", "be"]


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        (
            CONLL_2012.replace("(V*) * -", "(V*) -"),
            "x.conll",
            "x.conll:3  has 13 cells\n  expected 14 as",
        ),
        (CONLL_2012.replace("#end document\n", ""), "x.conll", "x.conll:1  has a document that does not end"),
        (CONLL_2012.replace("film 01", "film -"), "x.conll", "x.conll:5  a sentence with 1 predicates has 2 columns"),
        (CONLL_2012.replace("*) (V*)", "* (V*)"), "x.conll", "x.conll:4  ARG1 does not end in its sentence"),
        (CONLL_2012.replace("(ARG0*)", "*)"), "x.conll", "x.conll:2  `*)` ends what has not begun"),
        (CONLL_2012.replace("*) (V*)", "(ARG2*) (V*)"), "x.conll", "x.conll:5  `(ARG2*)` begins within ARG1"),
        (CONLL_2012.replace("(ARG0*)", "ARG0"), "x.conll", "x.conll:2  `ARG0` is no bracket of an argument"),
        (CONLL_2012.replace("(ARG0*)", "(ARG9*)"), "x.conll", "x.conll:3  `ARG9` is no role"),
        (UNIVERSAL.replace("\n3\tis", "\n5\tis"), "x.conllu", "x.conllu:5  is word 5 of its sentence\n  expected 3"),
        (CONLL_2005.replace("- film (V", "film (V"), "x.props", "x.props:3  has 8 cells\n  expected 9"),
        ("no DT * * * - -\n", "x.props", "x.props  has no predicate"),
        ("\n", "x.props", "x.props  has no sentence"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, content: str, name: str, told: str) -> None:
    with pytest.raises(AtinukeError) as caught:
        task().load(write(tmp_path, content, name))
    assert told in str(caught.value)


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(0, 2**32))
def test_the_search_finds_the_best_sequence(length: int, seed: int) -> None:
    """Against all sequences of a few tags; the others score too low to be chosen."""
    few = [srl.NUMBERS[tag] for tag in ("O", "B-ARG0", "I-ARG0", "B-ARG1", "I-ARG1")]
    scores = np.full((length, len(srl.TAGS)), -1e3)
    scores[:, few] = np.random.default_rng(seed).normal(size=(length, len(few)))

    def legal(path: tuple[int, ...]) -> bool:
        try:
            spans([srl.TAGS[tag] for tag in path])
        except AtinukeError:
            return False
        return True

    best = max(filter(legal, itertools.product(few, repeat=length)), key=lambda p: scores[np.arange(length), p].sum())
    assert srl.viterbi(scores) == list(best)


@given(st.lists(st.sampled_from(["film", "verys", "a", "\u200b", "x1"]), min_size=1, max_size=30), st.data())
@settings(max_examples=40)
def test_who_knows_the_tags_finds_the_spans(texts: Texts, words: list[str], data: st.DataObject) -> None:
    """Words of several tokens and of none, and sentences longer than a window."""
    place = data.draw(st.sampled_from([i for i, word in enumerate(words) if word != "\u200b"] or [None]))
    if place is None:
        return
    length = data.draw(st.integers(12, 70))
    given_ = srl.Proposition(tuple(words), place, "film", 0)
    end = data.draw(st.integers(place + 1, len(words)))
    right = ((place, end, "V"),)
    item = srl.Item("0", "x", given_, right)
    (window,) = task(length=length).encode(item, texts)
    assert len(window.inputs["input_ids"]) <= length
    marked = window.inputs[srl.MARKS]
    assert marked.any()
    known = np.eye(len(srl.TAGS))[np.maximum(window.inputs["labels"], 0)]
    said = task(length=length).decode(item, [window], [{"logits": known}])
    shown = [i for i in range(place, end) if i in window.known.words]
    assert sorted(i for start, stop, _ in said for i in range(start, stop)) == shown


def test_from_a_file_to_a_score(tmp_path: Path) -> None:
    """Which word is the predicate decides: the same sentence with two predicates has two answers."""
    write(tmp_path, CONLL_2012, "train.conll")
    settings_ = {"name": "srl", "train": "train.conll", "validation": "train.conll", "length": 16, "dropout": 0.0}
    changed = recipe(tmp_path, settings_, steps=60, optimiser={"name": "adamw", "lr": 1e-2})
    run = start(load_recipe(changed), tmp_path / "run")
    result = CliRunner().invoke(app, ["evaluate", str(run.folder), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert {name: score["value"] for name, score in told["scores"].items()} == {"f1": 1.0, "perfect": 1.0}
    props = (run.folder / "evaluations/srl/train/predicted.props").read_text()
    assert props == "- (ARG0*) *\nfilm (V*) *\n- (ARG1* (ARGM-TMP*)\nbe *) (V*)\n\n"
    assert props == (run.folder / "evaluations/srl/train/right.props").read_text()


def test_props_that_anybody_made_are_scored(tmp_path: Path) -> None:
    items = task().load(write(tmp_path, CONLL_2012, "gold.conll"))
    content = "- (A0*) *\nfilm (V*) *\n- (A1* *\nbe *) (V*)\n\nno\n"
    said = task().predictions(write(tmp_path, content.replace("no\n", "-\n"), "said.props"), items)
    assert said == [[[0, 1, "ARG0"], [1, 2, "V"], [2, 4, "ARG1"]], [[3, 4, "V"]]]
    assert [score.value for score in task().score(items, said)] == [pytest.approx(0.8), 0.5]
    for wrong, told in (
        (
            "- *\n- *\n- *\nbe (V*)\n",
            "props:4  is not predicate 1 of the data\n  expected word 2 of 4",
        ),
        ("- (A0*)\nfilm (V*)\n- *\n- *\n", "has 1 predicates, where the data has 2"),
        (f"{content.removesuffix('no' + chr(10))}x (V*)\n", "props:6  is a predicate that is not in the data"),
    ):
        with pytest.raises(AtinukeError) as caught:
            task().predictions(write(tmp_path, wrong, "said.props"), items)
        assert told in str(caught.value)


def test_the_published_files_are_read(shared: Path) -> None:
    folder = shared / "data/srl_ewt"
    found = list(propositions(folder / "dev.conll.gz"))
    assert len(found) == 4965  # as its page says
    assert sum(label == "V" for one in found for *_, label in one.right) == 4965
    universal = list(propositions(folder / "dependency_style/en_ewt-up-dev.conllu.gz"))
    assert sum(label == "V" for one in universal for *_, label in one.right) == 4979
