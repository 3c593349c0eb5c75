import itertools
import math
from collections import defaultdict

import pytest
import torch

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.ctc import beam_search, greedy


def spelt(path, blank):
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def every_reading(scores, blank):
    """All labels that the frames can spell with their probabilities, from every alignment one by one."""
    probabilities, found = scores.softmax(-1), defaultdict(float)
    for path in itertools.product(range(scores.shape[1]), repeat=scores.shape[0]):
        found[spelt(path, blank)] += math.prod(probabilities[t, label].item() for t, label in enumerate(path))
    return found


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("frames", [1, 2, 4, 6])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_every_reading_with_its_probability(blank, frames, seed):
    torch.manual_seed(seed)
    scores = 2 * torch.randn(1, frames, 3, dtype=torch.float64)
    expected = every_reading(scores[0], blank)
    (found,) = beam_search(scores, blank=blank, beams=10_000)
    assert {reading.labels for reading in found} == set(expected)
    for reading in found:
        assert math.exp(reading.log_probability) == pytest.approx(expected[reading.labels], rel=1e-9)
    assert [reading.labels for reading in found] == sorted(expected, key=expected.get, reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_spells_the_likeliest_alignment(seed):
    torch.manual_seed(seed)
    scores = torch.randn(1, 5, 3, dtype=torch.float64)
    best = max(itertools.product(range(3), repeat=5), key=lambda path: sum(scores[0, t, c] for t, c in enumerate(path)))
    assert greedy(scores) == [spelt(best, 2)]
    assert greedy(scores, blank=0) == [spelt(best, 0)]


def test_the_beam_finds_what_greedy_misses():
    """Each frame is likeliest blank, and yet a label somewhere is likelier than none."""
    scores = torch.tensor([[[0.4, 0.6], [0.4, 0.6]]]).log()
    assert greedy(scores) == [()]
    assert beam_search(scores, beams=2)[0][0].labels == (0,)


def test_a_narrow_beam_keeps_the_best_and_never_says_more_than_is_true():
    torch.manual_seed(0)
    scores = 3 * torch.randn(1, 6, 4, dtype=torch.float64)
    expected = every_reading(scores[0], 3)
    (found,) = beam_search(scores, beams=5)
    assert len(found) == 5
    assert found[0].labels == max(expected, key=expected.get)
    assert all(math.exp(one.log_probability) <= expected[one.labels] * (1 + 1e-9) for one in found)


def test_hidden_frames_are_as_if_they_were_not_there():
    torch.manual_seed(0)
    scores, mask = torch.randn(2, 6, 3), torch.tensor([[True, False, True, True, False, False], [False] * 6])
    kept = scores[:1, [0, 2, 3]]
    assert greedy(scores, mask) == [*greedy(kept), ()]
    assert beam_search(scores, mask) == [*beam_search(kept), [((), 0.0)]]


def test_impossible_classes_are_no_trouble():
    scores = torch.full((1, 3, 3), float("-inf"))
    scores[0, :, 1] = 0
    assert beam_search(scores) == [[((1,), 0.0)]]


@pytest.mark.parametrize(
    ("scores", "more", "message"),
    [
        (torch.zeros(3, 4), {}, r"scores must be \[batch, frames, classes\]"),
        (torch.zeros(1, 3, 4), {"blank": 4}, "blank must be 0 to 3"),
        (torch.zeros(1, 3, 4), {"mask": torch.ones(1, 3)}, r"mask must be bool\[1, 3\]"),
        (torch.zeros(1, 3, 4), {"mask": torch.ones(1, 2, dtype=torch.bool)}, r"mask must be bool\[1, 3\]"),
        (torch.full((1, 3, 4), float("nan")), {}, "the scores of row 0 hold NaN"),
    ],
)
@pytest.mark.parametrize("read", [greedy, beam_search])
def test_mistakes(read, scores, more, message):
    with pytest.raises(AtinukeError, match=message):
        read(scores, **more)


def test_no_beam():
    with pytest.raises(AtinukeError, match="`beams` must be at least 1"):
        beam_search(torch.zeros(1, 1, 2), beams=0)
