"""Retrieval against a plain sort, and chance against what random vectors reach."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atinuke.pipelines.scores.retrieval import retrieval


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**32))
def test_ranks_are_places_in_a_sorted_list(pairs: int, texts: int, seed: int) -> None:
    """Several pictures of one text: each finds the text, and the text any of them."""
    random = np.random.default_rng(seed)
    text = random.integers(0, texts, pairs)
    pictures, words = random.normal(size=(pairs, 6)), random.normal(size=(texts, 6))
    found = retrieval(pictures, words[text], range(pairs), text.tolist())
    there, back = [], []
    known = sorted(set(text.tolist()))
    for i in range(pairs):
        order = sorted(known, key=lambda t: -float(pictures[i] @ words[t]))
        there.append(order.index(text[i]) + 1)
    for t in known:
        order = sorted(range(pairs), key=lambda i: -float(pictures[i] @ words[t]))
        back.append(min(order.index(i) for i in range(pairs) if text[i] == t) + 1)
    for ranks, direction in ((there, found.there), (back, found.back)):
        assert direction.median_rank == np.median(ranks)
        assert [one.found.value for one in direction.recalls] == [np.mean(np.array(ranks) <= k) for k in (1, 5, 10)]
    assert (found.there.queries, found.there.candidates) == (pairs, len(known))
    assert (found.back.queries, found.back.candidates) == (len(known), pairs)


def test_chance_is_the_mean_over_all_orders() -> None:
    """Five pictures, two of one text: every order of the pictures, counted out."""
    things = [0, 0, 1, 2, 3]
    found = retrieval(np.eye(5), np.eye(5)[things], range(5), things).back
    best = [[min(order.index(i) for i in range(5) if things[i] == t) + 1 for t in range(4)]
            for order in itertools.permutations(range(5))]  # fmt: skip
    ranks = np.array(best)
    assert found.recalls[0].chance == pytest.approx((ranks <= 1).mean())
    assert found.recalls[1].chance == pytest.approx(1.0)
    assert (ranks <= found.chance_rank).mean() >= 0.5 > (ranks <= found.chance_rank - 1).mean()


def test_a_perfect_model_finds_everything_and_a_blind_one_nothing() -> None:
    perfect = retrieval(np.eye(20), np.eye(20), range(20), range(20))
    assert perfect.there.recalls[0].found.value == perfect.back.recalls[0].found.value == 1
    assert perfect.there.median_rank == 1
    assert perfect.there.recalls[1].chance == pytest.approx(5 / 20)
    blind = retrieval(np.ones((20, 4)), np.ones((20, 4)), range(20), range(20))
    assert [one.found.value for one in blind.there.recalls] == [0, 0, 0]


def test_two_rows_with_one_text_are_right_for_each_other() -> None:
    pictures = np.array([[1.0, 0.0], [0.0, 1.0]])
    texts = np.array([[0.0, 1.0], [0.0, 1.0]])  # the first picture is nearer to nothing
    found = retrieval(pictures, texts, ["a", "b"], ["same", "same"])
    assert found.back.queries == 1
    assert found.back.recalls[0].found.value == 1  # the text finds the second picture, which is its own too
    assert found.there.recalls[0].found.value == 1  # there is but one text
