"""Figures of classes against scikit-learn's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from atinuke.pipelines.scores.classes import class_figures

CLASSES = 4


@given(st.lists(st.tuples(*[st.integers(0, CLASSES - 1)] * 2), min_size=1, max_size=40))
def test_the_figures_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    right, said = map(np.array, zip(*pairs, strict=True))
    found = class_figures(right, said, "abcd")
    every = list(range(CLASSES))
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(right, said))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(right, said, average="macro"))  # of what occurs
    assert np.array_equal(found.confusion, metrics.confusion_matrix(right, said, labels=every))
    precision, recall, f1, n = metrics.precision_recall_fscore_support(
        right, said, labels=every, zero_division=math.nan, average=None
    )
    assert [one.precision for one in found.classes] == pytest.approx(list(precision), nan_ok=True)
    assert [one.recall for one in found.classes] == pytest.approx(list(recall), nan_ok=True)
    assert [one.f1 for one in found.classes] == pytest.approx(list(f1), nan_ok=True)
    assert [one.n for one in found.classes] == list(n)


def test_no_rows_have_no_figures() -> None:
    none = np.empty(0, np.int64)
    found = class_figures(none, none, "ab")
    assert math.isnan(found.macro_f1)
    assert found.accuracy.n == 0
