"""Wilson's interval against scipy's."""

import math

import pytest
from scipy.stats import binomtest

from atinuke.pipelines.scores.share import share


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 250), (250, 250), (212, 250), (3, 7)])
def test_the_interval_is_wilsons(right: int, n: int) -> None:
    found = share(right, n)
    official = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert found.value == right / n
    assert (found.low, found.high) == pytest.approx((official.low, official.high), abs=1e-12)
    assert found.low <= found.value <= found.high


def test_nothing_has_no_share() -> None:
    assert math.isnan(share(0, 0).value)
    assert str(share(0, 0)) == "none (n = 0)"
