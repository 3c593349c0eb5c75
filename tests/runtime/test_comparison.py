"""When an output counts as the model's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from atinuke.runtime.comparison import differ
from atinuke.runtime.interface import Port

NUMBERS = st.floats(-1e6, 1e6, width=32)


def port(name: str = "y", dtype: str = "float32") -> Port:
    return Port(name, dtype, ("n",))


@given(arrays(np.float32, array_shapes(), elements=st.floats(width=32)))
def test_what_is_the_same_to_the_bit_has_no_error(values: np.ndarray) -> None:
    found = differ(port(), values, values.copy())
    assert (found.absolute, found.relative, found.fault) == (0.0, 0.0, None)


@given(arrays(np.float32, 5, elements=NUMBERS), arrays(np.float32, 5, elements=NUMBERS))
def test_the_error_is_a_share_of_the_largest_value(wanted: np.ndarray, got: np.ndarray) -> None:
    found = differ(port(), wanted, got)
    off = np.abs(wanted.astype(float) - got.astype(float)).max()
    assert found.absolute == off
    assert found.relative == pytest.approx(off / max(np.abs(wanted).max(), 1e-6))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_on_one_side_only_is_a_fault(bad: float) -> None:
    good, other = np.ones(3, np.float32), np.array([1, bad, 1], np.float32)
    assert differ(port(), good, other).fault
    assert differ(port(), other, good).fault
    assert differ(port(), other, other.copy()).fault is None
    assert differ(port(), other, np.array([1, -bad if bad == bad else np.inf, 1], np.float32)).fault


def test_another_dtype_or_shape_is_a_fault_and_masks_are_equal_or_not() -> None:
    one = np.ones(3, np.float32)
    assert differ(port(), one, one.astype(np.float64)).fault == "float64[3] in place of float32[3]"
    assert differ(port(), one, one[None]).fault == "float32[1, 3] in place of float32[3]"
    mask = np.array([True, False])
    assert differ(port(dtype="bool"), mask, mask).fault is None
    assert differ(port(dtype="bool"), mask, ~mask).fault == "2 differ"


def test_scores_tell_how_often_the_best_agrees() -> None:
    wanted, got = np.array([[1, 2], [2, 1]], np.float32), np.array([[1, 2], [1, 2]], np.float32)
    assert differ(port("logits"), wanted, got).agreement == 0.5
    assert differ(port("vector"), wanted, got).agreement is None
