"""The token error rate of hand-made readings."""

import pytest

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.scores.reading import ReadingSample, reading

NAMES = ("one", "two", "twenty three")


def test_edits_are_counted_over_all_rows() -> None:
    right = [(0, 1, 2), (2, 2), (), (1,)]
    read = [(0, 2), (2, 2), (1,), (0,)]
    found = reading("greedy", right, read, NAMES)
    assert (found.substitutions, found.deletions, found.insertions, found.labels) == (1, 1, 1, 6)
    assert found.error_rate == 3 / 6
    assert (found.whole.value, found.whole.n) == (1 / 4, 4)
    assert found.samples[0] == ReadingSample(("one", "two", "twenty three"), ("one", "twenty three"))


def test_nothing_to_read_is_said() -> None:
    with pytest.raises(AtinukeError, match="no row has a label"):
        reading("greedy", [()], [(1,)], NAMES)
