import math

from atinuke.pipelines.recipe import BadLoss
from atinuke.pipelines.watch import Watch


def test_what_is_not_finite_is_bad() -> None:
    watch = Watch(BadLoss())
    assert watch.judge(math.nan, 1.0) == "the loss is nan"
    assert watch.judge(2.0, math.inf) == "the gradient norm is inf"
    assert watch.judge(2.0, 1.0) is None


def test_a_spike_needs_a_full_window_and_is_not_remembered() -> None:
    watch = Watch(BadLoss(do="skip", spike=3, window=4))
    assert [watch.judge(loss, 1.0) for loss in (1.0, 99.0, 1.0, 3.0)] == [None] * 4
    watch = Watch(BadLoss(do="skip", spike=3, window=4), recent=[1.0, 3.0, 1.0, 3.0])
    assert watch.judge(5.01, 1.0) == "the loss 5.01 is a spike: it was 2 ± 1 in the last 4 good steps"
    assert list(watch.recent) == [1.0, 3.0, 1.0, 3.0]
    assert watch.judge(4.99, 1.0) is None
    assert list(watch.recent) == [3.0, 1.0, 3.0, 4.99]
    assert Watch(BadLoss(spike=None, window=4), recent=[1.0, 1.0, 1.0, 1.0]).judge(50.0, 1.0) is None


def test_it_gives_up_at_once_or_after_many_in_a_row() -> None:
    stop = Watch(BadLoss(do="stop"))
    stop.judge(math.nan, 1.0)
    assert stop.gives_up
    skip = Watch(BadLoss(do="skip", most=2))
    for loss, gives_up in [(math.nan, False), (1.0, False), (math.nan, False), (math.nan, True)]:
        skip.judge(loss, 1.0)
        assert (skip.row > 0 and skip.gives_up) == gives_up
