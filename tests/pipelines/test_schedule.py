import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR

from atinuke.pipelines.recipe import WSD, Cosine
from atinuke.pipelines.schedule import rate

schedules = st.one_of(
    st.builds(Cosine, name=st.just("cosine"), warmup=st.integers(0, 50), final=st.floats(0, 1)),
    st.builds(WSD, name=st.just("wsd"), warmup=st.integers(0, 50), decay=st.floats(0.05, 1), final=st.floats(0, 1)),
)


@given(schedules, st.integers(60, 300))
def test_it_rises_to_one_and_falls_to_final(schedule: Cosine | WSD, steps: int) -> None:
    rates = [rate(schedule, step, steps) for step in range(1, steps + 1)]
    up, down = rates[: schedule.warmup + 1], rates[schedule.warmup :]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert up[-1] == 1
    assert down[-1] == pytest.approx(schedule.final)
    assert min(rates) > 0 or schedule.final == 0


def test_cosine_is_that_of_torch() -> None:
    steps, final, warmup = 40, 0.1, 7
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = CosineAnnealingLR(optimiser, T_max=steps - warmup - 1, eta_min=final)
    for step in range(warmup + 1, steps + 1):
        assert rate(Cosine(name="cosine", warmup=warmup, final=final), step, steps) == pytest.approx(
            theirs.get_last_lr()[0], rel=1e-9
        )
        optimiser.step()
        theirs.step()


def test_wsd_is_flat_and_then_falls_in_a_line() -> None:
    schedule = WSD(name="wsd", warmup=4, decay=0.5, final=0.0)
    assert [rate(schedule, step, 20) for step in (1, 4, 5, 10, 15, 20)] == pytest.approx([0.2, 0.8, 1, 1, 0.5, 0])
