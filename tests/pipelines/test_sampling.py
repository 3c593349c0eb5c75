"""The filters against those of transformers, the draw against the distribution it draws from."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.sampling import Sampler, Settings, keep_top_k, keep_top_p, penalise, settings, shape
from atinuke.runtime.sampling import INVALID

CPU = torch.device("cpu")


@st.composite
def logits(draw: st.DrawFn) -> Tensor:
    """Logits with many ties and with tokens that are already ruled out, in the dtypes that models have."""
    rows, size = draw(st.integers(1, 4)), draw(st.integers(2, 40))
    values = st.one_of(st.integers(-3, 3).map(float), st.floats(-30, 30, width=32), st.just(float("-inf")))
    table = draw(st.lists(st.lists(values, min_size=size, max_size=size), min_size=rows, max_size=rows))
    for row in table:
        row[draw(st.integers(0, size - 1))] = 1.0
    return torch.tensor(table)


@st.composite
def logits_and_text(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    scores = draw(logits())
    length = draw(st.integers(1, 12))
    tokens = st.lists(st.integers(0, scores.shape[1] - 1), min_size=length, max_size=length)
    return scores, torch.tensor(draw(st.lists(tokens, min_size=len(scores), max_size=len(scores))))


@given(logits_and_text(), st.floats(0.1, 10))
def test_repetition_penalty_equals_transformers(case: tuple[Tensor, Tensor], penalty: float) -> None:
    scores, text = case
    expected = RepetitionPenaltyLogitsProcessor(penalty)(text, scores.clone())
    assert torch.equal(penalise(scores, text, penalty), expected)


@given(logits(), st.integers(1, 50))
def test_top_k_equals_transformers(scores: Tensor, k: int) -> None:
    assert torch.equal(keep_top_k(scores, k), TopKLogitsWarper(k)(None, scores.clone()))


@given(logits(), st.one_of(st.just(1e-12), st.just(1.0), st.floats(0.001, 1)))
def test_top_p_equals_transformers(scores: Tensor, p: float) -> None:
    assert torch.equal(keep_top_p(scores, p), TopPLogitsWarper(p)(None, scores.clone()))


@given(logits_and_text(), st.floats(0.1, 5), st.integers(1, 40), st.floats(0.01, 1), st.floats(0.5, 2))
def test_all_filters_in_the_order_of_transformers(
    case: tuple[Tensor, Tensor], temperature: float, k: int, p: float, penalty: float
) -> None:
    scores, text = case
    theirs = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(penalty),
            TemperatureLogitsWarper(temperature),
            TopKLogitsWarper(k),
            TopPLogitsWarper(p),
        ]
    )
    ours = Settings(temperature=temperature, top_k=k, top_p=p, repetition_penalty=penalty)
    assert torch.equal(shape(scores, text, ours), theirs(text, scores.clone()))


def test_draws_follow_the_distribution() -> None:
    """Pearson's chi-squared over 40,000 draws; the limit is passed by chance once in a million times."""
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5, float("-inf"), -2.0, 1.5])
    draws = 40_000
    sampler = Sampler(Settings(max_new_tokens=draws, temperature=0.8), [[0]], CPU)
    tokens = torch.stack([sampler(scores[None], step) for step in range(draws)])
    counts = tokens.flatten().bincount(minlength=len(scores))
    expected = (scores / 0.8).softmax(-1) * draws
    possible = expected > 0
    assert counts[~possible].sum() == 0
    chi_squared = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_squared < 38.3  # 6 degrees of freedom


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_a_token_of_probability_zero_is_never_drawn(draw: float) -> None:
    scores = torch.full((1, 50_000), float("-inf"))
    scores[0, 20_000:20_100] = torch.linspace(-5, 5, 100)
    sampler = Sampler(Settings(), [[0]], CPU)
    sampler.draws = torch.full((1, 1), draw, dtype=torch.float64)
    assert sampler(scores, 0).item() == (20_099 if draw else 20_000)


def test_a_rare_token_is_drawn_as_rarely_as_its_probability_says() -> None:
    scores = torch.tensor([[0.0, -25.0]])  # the second has a share of 1.4e-11, less than float32 can tell from 0
    sampler = Sampler(Settings(max_new_tokens=2), [[0]], CPU)
    sampler.draws = torch.tensor([[1 - 1.5e-11, 1 - 1.3e-11]], dtype=torch.float64)
    assert [sampler(scores, step).item() for step in range(2)] == [0, 1]


def test_temperature_zero_takes_the_likeliest_and_the_first_of_equals() -> None:
    scores = torch.tensor([[0.0, 3.0, 3.0, 1.0], [5.0, 3.0, 4.0, 1.0]])
    assert Sampler(Settings(temperature=0), [[0], [0]], CPU)(scores, 0).tolist() == [1, 0]


def test_repetition_penalty_sees_the_prompt_and_what_was_drawn() -> None:
    sampler = Sampler(Settings(temperature=0, repetition_penalty=10), [[0], [1, 2, 2]], CPU)
    scores = torch.tensor([4.0, 3.0, 2.0, 1.0]).expand(2, -1)
    drawn = [sampler(scores, step).tolist() for step in range(3)]
    assert drawn == [[1, 0], [2, 3], [3, 0]]


def test_a_seed_decides_every_draw_and_rows_do_not_notice_each_other() -> None:
    scores = torch.zeros(3, 1000)
    prompts = [[1, 2], [3], [1, 2]]

    def drawn(rows: list[list[int]], seed: int, steps: int = 8) -> list[list[int]]:
        sampler = Sampler(Settings(seed=seed, max_new_tokens=steps), rows, CPU)
        return torch.stack([sampler(scores[: len(rows)], step) for step in range(steps)], dim=1).tolist()

    together = drawn(prompts, seed=5)
    assert together[0] != together[1]
    assert together == drawn(prompts, seed=5)
    assert together != drawn(prompts, seed=6)
    assert together[0] == drawn([[1, 2]], seed=5)[0]
    assert together[1] == drawn([[3]], seed=5)[0]
    assert together[2] != together[0], "the same prompt twice must not give the same text twice"
    assert drawn(prompts, seed=5, steps=40)[0][:8] == together[0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_noticed(temperature: float) -> None:
    scores = torch.tensor([[0.0, float("nan")], [0.0, 1.0]])
    tokens = Sampler(Settings(temperature=temperature), [[0], [0]], CPU)(scores, 0)
    assert tokens[0] == INVALID
    assert tokens[1] != INVALID


def test_bfloat16_is_shaped_in_float32() -> None:
    scores = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    settings = Settings(temperature=0.7, max_new_tokens=300)
    half, single = (Sampler(settings, [[0], [0]], CPU) for _ in range(2))
    for step in range(300):
        assert torch.equal(half(scores, step), single(scores.float(), step))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"topk": 5}, "generation has no setting `topk`\n  to fix: use `top_k`"),
        ({"top_k": 0}, "`top_k`: must be at least 1\n  got 0"),
        ({"top_p": 1.5}, "`top_p`: must be at most 1\n  got 1.5"),
        ({"temperature": float("nan")}, "`temperature`: must be a finite number\n  got nan"),
        ({"temperature": "hot"}, "`temperature`: must be a number\n  got 'hot'"),
        ({"stop": ["\n", ""]}, "`stop.1`: must be a text of at least 1 character\n  got ''"),
        (
            {"temperature": 0, "top_k": 4},
            "`top_k` and `top_p` have no effect at `temperature` 0\n  to fix: raise the temperature or leave them out",
        ),
    ],
)
def test_a_wrong_setting_is_one_clear_error(given: dict[str, object], message: str) -> None:
    with pytest.raises(AtinukeError) as error:
        settings(**given)
    assert str(error.value) == message


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(AtinukeError) as error:
        settings(max_new_tokens=0, repetition_penalty=-1.0, seeds=3)
    assert len(error.value.mistakes) == 3
