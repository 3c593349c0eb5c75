"""Intervals and tests against SciPy's, and how often they are wrong where the truth is known."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.scores.score import Score, mean_score
from atinuke.pipelines.significance import Comparison, Interval, bootstrap, compare, verdicts

RANDOM = np.random.default_rng(0)


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    rows = np.stack([RANDOM.normal(size=80), RANDOM.normal(size=80)], 1)
    rows[:, 1] += rows[:, 0]
    found = bootstrap([Score("r", "spearman", rows)], resamples=4000)
    official = stats.bootstrap(
        tuple(rows.T),
        lambda x, y: stats.spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=1,
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((official.low, official.high), abs=0.02)
    assert found.value == pytest.approx(stats.spearmanr(*rows.T).statistic)


def test_p_is_scipys_of_exchanges() -> None:
    a, b = np.random.default_rng(5).normal(size=(2, 60)) + np.array([[0.2], [0]])
    found = compare([mean_score("x", a)], [mean_score("x", b)])
    official = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis), permutation_type="samples", vectorized=True, rng=2
    ).pvalue
    assert found.p == pytest.approx(official, abs=0.015)
    assert 0.02 < found.p < 0.98


def test_few_units_are_counted_out() -> None:
    """Five units, one side ahead in each: of 32 exchanges two are as large, so nothing may be said."""
    a, b = mean_score("x", np.array([3.0, 2, 4, 2, 3])), mean_score("x", np.ones(5))
    found = compare([a], [b])
    assert found.p == pytest.approx(2 / 32, abs=0.01)
    assert found.difference.low > 0
    assert found.better is None


def test_twins_are_told_apart_no_oftener_than_promised() -> None:
    """Two systems of the same quality, 300 times: 5 % is 15."""
    said = 0
    for seed in range(300):
        rows = np.random.default_rng(seed).integers(0, 2, (2, 60)).astype(np.float64)
        found = compare(*([mean_score("x", side)] for side in rows), resamples=400, seed=seed)
        said += found.better is not None
    assert stats.binomtest(said, 300, 0.05, alternative="greater").pvalue > 0.01


def test_a_real_difference_is_found_and_turned_round_for_errors() -> None:
    right, wrong = RANDOM.random(400) < 0.9, RANDOM.random(400) < 0.7
    a, b = mean_score("x", right.astype(float)), mean_score("x", wrong.astype(float))
    assert compare([a], [b], resamples=1000).better == "A"
    assert compare([b], [a], resamples=1000).better == "B"
    errors = [Score("x", "error rate", one.rows) for one in (a, b)]
    assert compare(errors[:1], errors[1:], resamples=1000).better == "B"


def test_a_system_is_no_better_than_itself() -> None:
    one = [Score("x", "spearman", RANDOM.normal(size=(30, 2)))]
    found = compare(one, one, resamples=1000)
    assert found == Comparison("x", one[0].value, one[0].value, Interval(0.0, 0.0, 0.0, 30), 1.0, None)


def test_groups_are_drawn_whole() -> None:
    """A row written ten times is no evidence of ten."""
    rows = RANDOM.normal(size=40)
    once = bootstrap([mean_score("x", rows)], resamples=4000)
    tenfold = mean_score("x", np.repeat(rows, 10))
    grouped = bootstrap([tenfold], np.repeat(np.arange(40), 10), resamples=4000)
    assert (grouped.low, grouped.high, grouped.units) == (pytest.approx(once.low), pytest.approx(once.high), 40)
    alone = bootstrap([tenfold], resamples=4000)
    assert (alone.high - alone.low) * 10**0.5 == pytest.approx(once.high - once.low, rel=0.1)
    shifted = mean_score("x", rows + np.abs(RANDOM.normal(size=40)) / 5)
    base = compare([shifted], [mean_score("x", rows)], resamples=1000)
    again = compare(
        [mean_score("x", np.repeat(shifted.rows[:, 0], 10))], [tenfold], np.repeat(np.arange(40), 10), resamples=1000
    )
    assert (again.p, again.better) == (base.p, base.better)


def test_seeds_vary_too() -> None:
    """Rows that are all alike leave only the seeds: the spread is that of their mean."""
    values = np.array([0.71, 0.74, 0.80, 0.83, 0.90])
    found = bootstrap([mean_score("x", np.full(50, value)) for value in values], resamples=20_000)
    drawn = np.mean(list(itertools.product(values, repeat=4)), 1)
    assert drawn.var() == pytest.approx(values.var(ddof=1) / 5)  # what drawing one less is for
    assert found.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.002)
    assert found.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.006)
    assert (found.value, found.runs) == (pytest.approx(values.mean()), 5)
    lucky = [mean_score("x", np.full(50, value)) for value in (0.70, 0.84, 0.99)]
    found = compare(lucky, [mean_score("x", np.full(50, 0.83))] * 3, resamples=1000)
    assert found.p < 0.01  # every row is for A
    assert found.better is None  # but not every seed


def test_everything_follows_from_the_seed() -> None:
    a, b = (mean_score("x", RANDOM.random(100)) for _ in range(2))
    assert compare([a], [b], seed=3, resamples=1000) == compare([a], [b], seed=3, resamples=1000)
    assert compare([a], [b], seed=3, resamples=1000) != compare([a], [b], seed=4, resamples=1000)


def test_holms_correction() -> None:
    """Holm's own steps: 0.01 by 3, 0.02 by 2, 0.03 by 1 but no less than the one before."""
    found = [
        Comparison(name, 1, 0, Interval(1, 0.5, 1.5, 9), p, "A")
        for name, p in zip("abc", (0.02, 0.01, 0.03), strict=True)
    ]
    told = verdicts(found, ["mean"] * 3)
    assert [one.p for one in told] == pytest.approx([0.04, 0.03, 0.04])
    assert [one.better for one in told] == ["A"] * 3
    told = verdicts([*found, found[2]], ["mean"] * 4)
    assert [one.better for one in told] == [None, "A", None, None]


def test_what_cannot_be_compared_is_refused() -> None:
    a = mean_score("x", np.ones(3))
    assert math.isnan(bootstrap([mean_score("x", np.ones(1))]).low)
    with pytest.raises(AtinukeError, match="of the same rows and kind\n  x: kind mean, 3 rows\n  x: kind mean, 2 rows"):
        compare([a], [mean_score("x", np.ones(2))])
    with pytest.raises(AtinukeError, match="both sides need as many runs\n  got 1 and 2"):
        compare([a], [a, a])
    with pytest.raises(AtinukeError, match="3 rows, 2 numbers of groups"):
        bootstrap([a], np.array([0, 1]))
