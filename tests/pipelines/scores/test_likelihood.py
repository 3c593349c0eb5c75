"""Perplexity and bits per byte of what can be counted by hand."""

import math

import numpy as np
import pytest

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.scores.likelihood import likelihood


def test_a_fair_choice_of_eight() -> None:
    """Each token one of 8, two tokens a word, three bytes a token: 3 bits a token, 1 a byte."""
    tokens = np.array([4, 8])
    token, word, byte = likelihood(tokens * math.log(8), tokens, tokens // 2, tokens * 3)
    assert (token.value, word.value, byte.value) == pytest.approx((8, 64, 1))


def test_long_texts_weigh_more() -> None:
    found = likelihood(np.array([0.0, 9.0]), np.array([1, 9]), np.array([1, 1]), np.array([1, 1]))
    assert found[0].value == pytest.approx(math.exp(0.9))


def test_what_is_no_probability_is_refused() -> None:
    one = np.array([1])
    with pytest.raises(AtinukeError, match="row 1 has nan"):
        likelihood(np.array([math.nan]), one, one, one)
    with pytest.raises(AtinukeError, match=r"row 1 has -1\.0"):
        likelihood(np.array([-1.0]), one, one, one)
    with pytest.raises(AtinukeError, match="there is no token"):
        likelihood(np.array([0.0]), 0 * one, one, one)
