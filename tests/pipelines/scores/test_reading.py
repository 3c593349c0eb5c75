"""The token error rate of hand-made readings."""

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.scores.reading import ReadingSample, reading, word_errors

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


@settings(max_examples=1000)
@given(st.lists(st.tuples(*[st.text("ab ", max_size=8)] * 2), min_size=1, max_size=5))
def test_word_errors_are_those_of_jiwer_over_all_texts(pairs: list[tuple[str, str]]) -> None:
    right, read = map(list, zip(*pairs, strict=True))
    if any(text.split() for text in right):
        assert word_errors(right, read).value == pytest.approx(jiwer.wer(right, read))
    else:
        with pytest.raises(AtinukeError, match="no text has a word"):
            word_errors(right, read)
