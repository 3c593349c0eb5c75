import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke.plugins.specaugment import SpecAugment, stripes


def runs(hidden):
    """How many stretches of True there are in a row."""
    return int((hidden[1:] & ~hidden[:-1]).sum() + hidden[0])


@settings(max_examples=60)
@given(
    frames=st.integers(1, 60),
    mels=st.integers(1, 40),
    counts=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    widths=st.tuples(st.integers(0, 50), st.integers(0, 80)),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_hides_so_many_stripes_so_wide_within_what_counts(frames, mels, counts, widths, share, seed, data):
    torch.manual_seed(seed)
    length = data.draw(st.integers(0, frames))
    module = SpecAugment(counts[0], widths[0], counts[1], widths[1], share).train()
    x = torch.ones(3, frames, mels)
    mask = torch.arange(frames).expand(3, -1) < length
    for row in module(x, mask):
        assert ((row == 0) | (row == 1)).all()
        hidden_mels, hidden_frames = (row == 0).all(0), (row == 0).all(1)
        assert torch.equal(row == 0, hidden_mels | hidden_frames[:, None])
        if not hidden_mels.all():
            assert not hidden_frames[length:].any()
            assert runs(hidden_frames) <= counts[1]
            assert hidden_frames.sum() <= counts[1] * min(widths[1], int(length * share + 1e-4))
        if not hidden_frames.all():
            assert runs(hidden_mels) <= counts[0]
            assert hidden_mels.sum() <= counts[0] * min(widths[0], mels)


def test_every_width_and_every_place_is_equally_likely():
    torch.manual_seed(0)
    rows = 60_000
    hidden = stripes(6, torch.full((rows,), 5), torch.full((rows,), 2), 1)
    assert not hidden[:, 5].any()
    widths = hidden.sum(1)
    for width in (0, 1, 2):
        chosen = hidden[widths == width]
        assert abs(len(chosen) / rows - 1 / 3) < 0.01
        for first in range(5 - width + 1 if width else 0):
            share = chosen[:, first : first + width].all(1).float().mean()
            assert abs(share - 1 / (5 - width + 1)) < 0.015


def test_rows_differ_and_a_seed_repeats_them():
    module = SpecAugment(time_width=10).train()
    x = torch.randn(8, 50, 40)
    torch.manual_seed(1)
    first = module(x)
    torch.manual_seed(1)
    assert torch.equal(first, module(x))
    assert not torch.equal(first, module(x))
    assert len({tuple((row == 0).flatten().tolist()) for row in first}) == 8


def test_does_nothing_in_evaluation():
    x = torch.randn(2, 50, 40)
    assert torch.equal(SpecAugment().eval()(x), x)


def test_compiles_in_training_for_every_length():
    torch.compiler.reset()
    module = SpecAugment(time_width=5).train()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for frames in (20, 31, 7):
            x, mask = torch.randn(3, frames, 12), torch.rand(3, frames) < 0.9
            torch.manual_seed(0)
            expected = module(x, mask)
            torch.manual_seed(0)
            assert torch.equal(compiled(x, mask), expected)


@pytest.mark.parametrize(("name", "value"), [("frequency_masks", -1), ("time_width", -1), ("time_share", 1.5)])
def test_refuses_what_makes_no_sense(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*, but is {value}"):
        SpecAugment(**{name: value})
