"""Semantic roles against what srl-eval.pl prints for the same propositions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.scores.roles import arguments, roles, spans, tags

V = (2, 3, "V")
RIGHT = [
    [(0, 2, "A0"), V, (3, 5, "A1"), (6, 8, "C-A1"), (8, 9, "AM-TMP")],
    [(0, 1, "A1"), (1, 2, "R-A1"), V, (3, 4, "C-A1")],
    [(0, 2, "A0"), V, (3, 6, "A1")],
    [(0, 2, "A0"), V, (4, 5, "C-V"), (5, 6, "A1")],
    [(0, 2, "C-A2"), V, (3, 4, "A2")],
    [(0, 1, "A0"), V],
]
SAID = [
    [(0, 2, "A0"), V, (3, 5, "A1"), (6, 7, "C-A1"), (8, 9, "AM-TMP")],  # one piece of A1 is too short
    [(0, 1, "A1"), (1, 2, "R-A1"), V, (3, 4, "C-A1")],
    None,
    [(0, 2, "A1"), V, (5, 6, "A1")],  # a wrong label
    [(0, 2, "A2"), V, (3, 4, "A2")],  # C-A2 with nothing to continue is an A2
    [(0, 1, "A0"), V, (3, 4, "C-A1")],
]
# What the script prints: corr., excess and missed; prec., rec., F1 and the percentage of perfect props.
OFFICIAL = {
    "all": (8, 3, 4),
    "A0": (2, 0, 2),
    "A1": (2, 3, 2),
    "A2": (2, 0, 0),
    "AM-TMP": (1, 0, 0),
    "R-A1": (1, 0, 0),
}
OVERALL = [72.73, 66.67, 69.57, 33.33]


def test_the_official_script_says_the_same() -> None:
    found = roles(RIGHT, SAID)
    every = {one.name: (one.right, one.excess, one.missed) for one in (found.overall, *found.roles)}
    assert every == OFFICIAL
    overall = found.overall
    told = [100 * overall.precision, 100 * overall.recall, 100 * overall.f1, 100 * found.perfect]
    assert told == pytest.approx(OVERALL, abs=0.005)
    assert found.score.value == pytest.approx(overall.f1)


def test_pieces_continue_the_last_argument_of_their_label() -> None:
    found = arguments([(5, 6, "C-A1"), (0, 1, "A1"), (2, 3, "A1"), (4, 5, "C-A1")])
    assert found == {("A1", ((0, 1),)), ("A1", ((2, 3), (4, 5), (5, 6)))}


def test_nothing_said_and_nothing_there() -> None:
    found = roles([[V], [V]], [[V], None])
    assert (found.score.value, found.perfect, found.roles) == (0, 1, ())
    assert roles([[(0, 1, "A0"), V]], [[]]).overall.missed == 1
    assert roles([], []).overall.f1 == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from(["A0", "A1", "C-A1"])), max_size=5))
def test_tags_hold_spans(gaps: list[tuple[int, int, str]]) -> None:
    after, drawn = 0, []
    for gap, length, label in gaps:
        drawn.append((after + gap, after + gap + length, label))
        after += gap + length
    assert spans(tags(drawn, after + 1)) == drawn


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(AtinukeError, match="do not overlap\n  got A1 from 1 to 3"):
        arguments([(0, 2, "A0"), (1, 3, "A1")])
    with pytest.raises(AtinukeError, match="tag 2, I-A1, continues nothing"):
        spans(["B-A0", "I-A1"])
    with pytest.raises(AtinukeError, match="1 propositions and 0 answers"):
        roles([[]], [])
