"""Figures of numbers against scikit-learn's and scipy's."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from atinuke.pipelines.scores.numbers import number_figures


@pytest.mark.parametrize("ties", [False, True])
def test_the_figures_are_the_official_ones(ties: bool) -> None:
    random = np.random.default_rng(0)
    right = random.normal(10, 3, 80)
    said = right + random.normal(1, 2, 80)
    if ties:
        right, said = right.round(), said.round()
    found = number_figures(right, said)
    assert found.rmse == pytest.approx(metrics.root_mean_squared_error(right, said))
    assert found.mae == pytest.approx(metrics.mean_absolute_error(right, said))
    assert found.pearson == pytest.approx(stats.pearsonr(right, said).statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(right, said).statistic)
    assert found.spread == pytest.approx(metrics.root_mean_squared_error(right, np.full(80, right.mean())))
    assert found.n == 80


def test_what_never_changes_has_no_correlation() -> None:
    found = number_figures(np.array([1.0, 2.0]), np.array([3.0, 3.0]))
    assert math.isnan(found.pearson)
    assert math.isnan(found.spearman)
    assert found.mae == 1.5
