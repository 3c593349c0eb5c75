"""Texts that are there already, scored in batches, against one text at a time in full."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.likelihood import likelihoods
from tests.pipelines import gpt2

TOKENS = st.lists(st.integers(0, gpt2.VOCAB - 1), min_size=1, max_size=12)


@settings(max_examples=25)
@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=6), st.integers(1, 4), st.integers(12, 20))
def test_sums_of_log_probabilities(pairs: list[tuple[list[int], list[int]]], batch: int, context: int) -> None:
    theirs, ours = gpt2.pair()
    found = likelihoods(ours, pairs, context, batch)
    for (before, after), (total, greedy) in zip(pairs, found, strict=True):
        text = [*before, *after][-context - 1 :]
        with torch.inference_mode():
            scores = theirs(torch.tensor([text[:-1]])).logits[0].log_softmax(-1)[-len(after) :]
        assert total == pytest.approx(sum(scores[at, token].item() for at, token in enumerate(after)), abs=1e-9)
        assert greedy == (scores.argmax(-1).tolist() == after)


def test_what_the_model_would_write_is_greedy() -> None:
    theirs, ours = gpt2.pair()
    prompt = torch.tensor([[5, 6, 7]])
    after = theirs.generate(prompt, max_new_tokens=5, do_sample=False, eos_token_id=None)[0, 3:].tolist()
    [(_, greedy), (_, other)] = likelihoods(
        ours, [([5, 6, 7], after), ([5, 6, 7], [*after[:-1], after[-1] ^ 1])], 20, 2
    )
    assert greedy
    assert not other


@pytest.mark.parametrize("pair", [([], [1]), ([1], []), ([1], [2] * 21)])
def test_what_cannot_be_scored(pair: tuple[list[int], list[int]]) -> None:
    with pytest.raises(AtinukeError, match="tokens cannot be scored"):
        likelihoods(gpt2.pair()[1], [pair], 20, 1)
