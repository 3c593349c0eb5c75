"""The numpy sampler against torch's and against transformers' filters."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from atinuke.core.errors import AtinukeError
from atinuke.pipelines import sampling as torchs
from atinuke.runtime.sampling import INVALID, Sampler, Settings, shape


@given(st.integers(0, 2**32), st.floats(0.2, 3), st.integers(1, 40), st.floats(0.05, 1), st.floats(0.5, 2))
@example(0, 2.0, 18, 0.90625, 1.0)
def test_filters_in_the_order_of_transformers(seed: int, temperature: float, k: int, p: float, penalty: float) -> None:
    random = np.random.default_rng(seed)
    scores = (random.standard_normal((3, 30)) * 5).round(1).astype(np.float32)
    scores[random.random(scores.shape) < 0.2] = -np.inf
    scores[:, 0] = 1
    text = random.integers(0, 30, (3, 7))
    theirs = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(penalty),
            TemperatureLogitsWarper(temperature),
            TopKLogitsWarper(k),
            TopPLogitsWarper(p),
        ]
    )(torch.from_numpy(text), torch.from_numpy(scores.copy()))
    ours = shape(scores, text, Settings(temperature=temperature, top_k=k, top_p=p, repetition_penalty=penalty))
    assert ours.dtype == np.float32
    # A sum of probabilities that is as good as p may fall on either side of it, and of equal scores either may go.
    kept, also = np.isfinite(ours), np.isfinite(theirs.numpy())
    edge = kept != also
    either = np.where(kept, ours, np.where(also, theirs.numpy(), np.inf))
    assert (np.abs(kept.sum(-1) - also.sum(-1)) <= 1).all()
    assert (either == either.min(-1, keepdims=True))[edge].all()
    np.testing.assert_allclose(ours[~edge], theirs.numpy()[~edge], rtol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0},
        {"temperature": 0, "repetition_penalty": 1.4},
        {"seed": 3},
        {"seed": 4, "temperature": 0.7, "top_k": 50, "top_p": 0.9, "repetition_penalty": 1.2},
    ],
)
def test_the_same_tokens_as_torch_for_the_same_seed(values: dict[str, object]) -> None:
    prompts = [[1, 2, 3], [4], [1, 2, 3]]
    random = np.random.default_rng(0)
    ours = Sampler(Settings(max_new_tokens=60, **values), prompts)
    theirs = torchs.Sampler(torchs.Settings(max_new_tokens=60, **values), prompts, torch.device("cpu"))
    for step in range(60):
        scores = (random.standard_normal((3, 500)) * 3).astype(np.float32)
        assert ours(scores, step).tolist() == theirs(torch.from_numpy(scores), step).tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_noticed(temperature: float) -> None:
    scores = np.array([[0.0, np.nan], [0.0, 1.0]], np.float32)
    tokens = Sampler(Settings(temperature=temperature), [[0], [0]])(scores, 0)
    assert tokens[0] == INVALID
    assert tokens[1] != INVALID


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_a_token_of_probability_zero_is_never_drawn(draw: float) -> None:
    scores = np.full((1, 50_000), -np.inf, np.float32)
    scores[0, 20_000:20_100] = np.linspace(-5, 5, 100)
    sampler = Sampler(Settings(), [[0]])
    sampler.draws = np.full((1, 1), draw)
    assert sampler(scores, 0).item() == (20_099 if draw else 20_000)


def test_half_precision_is_shaped_in_float32() -> None:
    scores = np.random.default_rng(0).standard_normal((2, 50)).astype(np.float16)
    settings = Settings(temperature=0.7, max_new_tokens=50)
    half, single = (Sampler(settings, [[0], [0]]) for _ in range(2))
    for step in range(50):
        assert (half(scores, step) == single(scores.astype(np.float32), step)).all()


def test_the_runtime_searches_no_beams() -> None:
    with pytest.raises(AtinukeError, match="no setting `beams`"):
        Settings.read(beams=4)
