"""GLUE's metrics against scikit-learn's and SciPy's."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.scores.glue import AVERAGED, METRICS, average, glue


def values(task: str, right: np.ndarray, said: np.ndarray) -> dict[str, float]:
    return {score.name: score.value for score in glue(task, right, said)}


@pytest.mark.parametrize("task", METRICS)
def test_the_metrics_are_the_official_ones(task: str) -> None:
    random = np.random.default_rng(len(task))
    if task == "stsb":
        right = random.uniform(0, 5, 200).round(1)
        said = right + random.normal(size=200)
        expected = {
            "pearson": stats.pearsonr(right, said).statistic,
            "spearman": stats.spearmanr(right, said).statistic,
        }
    else:
        classes = 3 if task in ("mnli", "ax") else 2
        right = random.integers(0, classes, 200)
        said = np.where(random.random(200) < 0.7, right, random.integers(0, classes, 200))
        expected = {"accuracy": metrics.accuracy_score(right, said), "matthews": metrics.matthews_corrcoef(right, said)}
        if classes == 2:
            expected["f1"] = metrics.f1_score(right, said)
    assert values(task, right, said) == pytest.approx({name: expected[name] for name in METRICS[task]})


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
