"""GLUE's metrics against scikit-learn's and SciPy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.scores.glue import AVERAGED, METRICS, average, glue


def values(task: str, right: np.ndarray, said: np.ndarray) -> dict[str, float]:
    return {score.name: score.value for score in glue(task, right, said)}


def likenesses() -> st.SearchStrategy[float]:
    return st.integers(0, 25).map(lambda number: number / 5)  # as STS-B writes them, with ties


@pytest.mark.filterwarnings("ignore")  # the references warn where answers never change
@pytest.mark.parametrize("kind", ["classes", "likeness"])
@settings(max_examples=1000)
@given(st.data())
def test_the_metrics_are_the_official_ones(kind: str, data: st.DataObject) -> None:
    if kind == "likeness":
        pairs = data.draw(
            st.lists(st.tuples(likenesses(), st.one_of(likenesses(), st.floats(-9, 9, width=16))), min_size=2)
        )
        right, said = map(np.array, zip(*pairs, strict=True))
        expected = {
            "pearson": stats.pearsonr(right, said).statistic,
            "spearman": stats.spearmanr(right, said).statistic,
        }
        expected = {name: 0.0 if np.isnan(value) else value for name, value in expected.items()}  # told in glue.py
        tasks = ["stsb"]
    else:
        classes = data.draw(st.sampled_from([2, 3]))
        pairs = data.draw(st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1))
        right, said = map(np.array, zip(*pairs, strict=True))
        expected = {"accuracy": metrics.accuracy_score(right, said), "matthews": metrics.matthews_corrcoef(right, said)}
        if classes == 2:
            expected["f1"] = metrics.f1_score(right, said)
        tasks = ["mnli", "ax"] if classes == 3 else sorted(set(METRICS) - {"mnli", "ax", "stsb"})
    for task in tasks:
        found = values(task, right, said)
        assert found == pytest.approx({name: expected[name] for name in METRICS[task]}, abs=1e-6)


def test_answers_that_never_change() -> None:
    right, same = np.array([0, 1, 1, 0]), np.ones(4, np.int64)
    assert values("cola", right, same) == {"matthews": 0}
    assert values("stsb", right / 2, same / 3) == {"pearson": 0, "spearman": 0}
    assert values("mrpc", right, 0 * same) == {"f1": 0, "accuracy": 0.5}
    assert values("mrpc", 0 * same, 0 * same) == {"f1": 0, "accuracy": 1}


def test_the_average_is_over_tasks_not_figures() -> None:
    figures = {task: [0.5] for task in AVERAGED} | {"mrpc": [1.0, 0.0], "mnli": [0.9, 0.8]}
    assert average(figures) == pytest.approx((8 * 0.5 + 0.85) / 9)
    with pytest.raises(AtinukeError, match=r"no figure of qqp$"):
        average({task: [0.5] for task in AVERAGED if task != "qqp"})


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(AtinukeError, match="GLUE has no task 'sst'"):
        glue("sst", np.zeros(1), np.zeros(1))
    with pytest.raises(AtinukeError, match="got 2 labels, 1 answers"):
        glue("rte", np.zeros(2), np.zeros(1))
