"""What is dropped while training: as many as was said, wherever they are, and the mean stays."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atinuke.plugins.dropout import Dropout, drop

RATES = st.floats(0.001, 0.999)
SHAPES = st.lists(st.integers(0, 9), max_size=4)


@given(RATES, SHAPES, st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
def test_every_value_is_zero_or_larger_by_as_much(rate: float, shape: list[int], dtype: torch.dtype) -> None:
    x = torch.randn(shape, dtype=dtype).abs() + 1
    dropped = drop(x.requires_grad_(), rate)
    assert (dropped.shape, dropped.dtype) == (x.shape, dtype)
    kept = dropped != 0
    rounded = {torch.bfloat16: 2**-7, torch.float16: 2**-10}.get(dtype, 1e-6) + 2**-16 / (1 - rate)  # rates too
    torch.testing.assert_close(dropped[kept], (x / (1 - rate))[kept], rtol=rounded, atol=0)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    torch.testing.assert_close(gradient * x, dropped)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.9, 0.98])
def test_as_many_are_dropped_as_was_said_whichever_they_are(rate: float) -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(200_000, 4), rate) == 0  # four values are one draw
    shares = dropped.double().mean(0)
    deviation = (rate * (1 - rate) / 200_000) ** 0.5
    assert (shares - rate).abs().max() < 5 * deviation
    together = torch.corrcoef(dropped.T.double())
    assert (together - torch.eye(4)).abs().max() < 5 / 200_000**0.5
    after = torch.corrcoef(torch.stack((dropped.flatten()[:-1], dropped.flatten()[1:])).double())
    assert after[0, 1].abs() < 5 / 800_000**0.5


def test_the_mean_stays_while_training_and_everything_after() -> None:
    torch.manual_seed(0)
    dropout, x = Dropout(0.25), torch.ones(100, 1000)
    dropped = dropout(x)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(dropout.eval()(x), x)
    assert Dropout(0.0)(x) is x


def test_the_generator_decides() -> None:
    x = torch.ones(7, 11)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = drop(x, 0.5)
        second = drop(x, 0.5)
        torch.manual_seed(3)
        assert torch.equal(drop(x, 0.5), first)
    assert not torch.equal(first, second)


def test_it_stays_on_its_device_whichever_is_the_default() -> None:
    x = torch.ones(7, 11)
    with torch.device("meta"):
        dropped = drop(x, 0.5)
    assert dropped.device == x.device
    assert set(dropped.unique().tolist()) == {0, 2}
