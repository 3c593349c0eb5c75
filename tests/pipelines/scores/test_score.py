"""Figures of weighted rows against SciPy, scikit-learn and sacrebleu on the rows written out as often as they count."""

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.scores.glue import macro_f1
from atinuke.pipelines.scores.score import KINDS, Score, mean_score
from atinuke.pipelines.scores.translation import bleu, chrf

Pairs = list[tuple[int, int, int]]
rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=25)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
@settings(max_examples=50)
@given(drawn=rows, shift=st.sampled_from([0.0, 1e6]))
def test_a_correlation_of_weighted_rows_is_that_of_repeated_ones(kind: str, drawn: Pairs, shift: float) -> None:
    x, y, often = np.array(drawn).T
    score = Score(kind, kind, np.stack([x / 4 + shift, y], 1))
    found = KINDS[kind].figure(score.rows, np.stack([often, np.ones_like(often)]).astype(np.float64))
    for value, times in zip(found, (often, np.ones_like(often)), strict=True):
        a, b = np.repeat(x, times), np.repeat(y, times)
        if len(set(a)) < 2 or len(set(b)) < 2:
            assert value == 0
        else:
            official = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[kind](a, b).statistic
            assert value == pytest.approx(official, abs=1e-6 if shift else 1e-9)


@settings(max_examples=50)
@pytest.mark.filterwarnings("ignore:A single label")
@given(rows)
def test_matthews_is_that_of_scikit_learn(drawn: Pairs) -> None:
    right, said, _ = np.array(drawn).T
    confusion = np.eye(25)[5 * right + said]
    assert Score("m", "matthews", confusion).value == pytest.approx(metrics.matthews_corrcoef(right, said), abs=1e-12)


@settings(max_examples=50)
@given(rows)
def test_macro_f1_is_that_of_scikit_learn(drawn: Pairs) -> None:
    right, said, often = np.array(drawn).T
    score = macro_f1(right, said, 6)
    assert score.value == pytest.approx(metrics.f1_score(right, said, average="macro"), abs=1e-12)
    if often.any():
        weighted = metrics.f1_score(*(np.repeat(one, often) for one in (right, said)), average="macro")
        assert score.figure(often[None].astype(np.float64))[0] == pytest.approx(weighted, abs=1e-12)


@settings(max_examples=1000)
@given(st.lists(st.tuples(*[st.text("abc ", max_size=14)] * 2), min_size=1, max_size=4))
def test_chrf_and_bleu_are_those_of_sacrebleu(texts: list[tuple[str, str]]) -> None:
    said, right = map(list, zip(*texts, strict=True))
    assert chrf(said, right).value == pytest.approx(sacrebleu.corpus_chrf(said, [right]).score, abs=1e-9)
    assert bleu(said, right).value == pytest.approx(sacrebleu.corpus_bleu(said, [right]).score, abs=1e-9)


def test_a_share_of_nothing_is_nothing() -> None:
    assert mean_score("x", np.empty(0)).value == 0
    assert Score("x", "f1", np.zeros((3, 4))).value == 0
    assert Score("x", "matthews", np.zeros((0, 4))).value == 0


@pytest.mark.parametrize(
    ("kind", "table", "message"),
    [
        ("f2", np.zeros((1, 4)), "there is no kind of score called 'f2'"),
        ("f1", np.zeros((1, 3)), "expected 4 columns"),
        ("mean", np.array([[1.0, 1.0], [np.nan, 1.0]]), "row 2 is no number"),
    ],
)
def test_what_is_no_score_is_refused(kind: str, table: np.ndarray, message: str) -> None:
    with pytest.raises(AtinukeError, match=message):
        Score("x", kind, table)
