"""Coreference scores: the cases of the reference scorer, definitions written out, and what is degenerate."""

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.scores.coreference import Clusters, coreference, table

NAMES = {"muc": "MUC", "bcub": "B³", "ceafm": "CEAF-φ3", "ceafe": "CEAF-φ4", "blanc": "BLANC"}


def clusters(text: str) -> list[list[tuple[int, int]]]:
    """The clusters of a file of the scorer's own test cases, in the order in which they begin."""
    found, begun = defaultdict(list), defaultdict(list)
    words = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for place, word in enumerate(words):
        for opens, number, closes in re.findall(r"(\(?)(\d+)(\)?)", word[-1] if word[-1] != "-" else ""):
            if opens:
                found[number] += []
                begun[number].append(place)
            if closes:
                found[number].append((begun[number].pop(), place))
    return list(found.values())


def values(key: Clusters, response: Clusters) -> dict[str, float]:
    return {score.name: score.value for score in coreference([(key, response)])}


def test_the_cases_of_the_reference_scorer(shared: Path) -> None:
    folder = shared / "data/coref_scorer_cases"
    cases = json.loads((folder / "expected.json").read_text())
    assert len(cases) == 36
    for case in cases:
        key, response = (clusters((folder / case[side]).read_text()) for side in ("key", "response"))
        found = {score.name: score for score in coreference([(key, response)])}
        for metric, expected in case["expected"].items():
            score = found[NAMES[metric]]
            assert score.value == pytest.approx(expected["f1"], abs=1e-5), (case["id"], metric)
            if metric != "blanc":
                counts = score.rows[0]
                for name, part, whole in (("recall", *counts[:2]), ("precision", *counts[2:])):
                    assert part / max(whole, 1) == pytest.approx(expected[name], abs=1e-5), (case["id"], metric)


def test_cases_from_the_papers() -> None:
    """Bagga and Baldwin (1998), Luo (2005) and Moosavi and Strube (2016), where their figures are printed."""
    key = [list("12345"), list("67"), list("89ABC")]
    assert values(key, [list("12345"), list("6789ABC")])["B³"] == pytest.approx(0.864865, abs=1e-6)
    assert values(key, [list("123456789ABC"), []])["MUC"] == pytest.approx(2 * 9 / 11 / (1 + 9 / 11))
    assert values([list("abc"), list("defg")], [list("ab"), list("cd"), list("fghi")])["LEA"] == pytest.approx(
        2 * 0.24 * 0.33 / (0.24 + 0.33), abs=0.005
    )


@st.composite
def documents(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    def side() -> list[list[int]]:
        where = draw(st.lists(st.sampled_from([None, 0, 1, 2, 3]), min_size=7, max_size=7))
        return [[m for m, c in enumerate(where) if c == i] for i in range(4)]

    return [cluster for cluster in side() if cluster], [cluster for cluster in side() if cluster]


@settings(max_examples=150)
@given(documents())
def test_the_definitions_written_out(document: tuple[list[list[int]], list[list[int]]]) -> None:
    key, response = document
    found = values(key, response)

    def f1(hits: float, right: float, other: float, said: float) -> float:
        recall, precision = hits / right if right else 0.0, other / said if said else 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    def pieces(cluster: list[int], others: list[list[int]]) -> int:
        """Into how many the other side parts a cluster, as in the paper on MUC."""
        inside = [set(cluster) & set(other) for other in others]
        return sum(map(bool, inside)) + len(cluster) - sum(map(len, inside))

    def muc(side: list[list[int]], others: list[list[int]]) -> tuple[int, int]:
        return sum(len(c) - pieces(c, others) for c in side), sum(len(c) - 1 for c in side)

    def b3(side: list[list[int]], others: list[list[int]]) -> tuple[float, int]:
        shares = [len(set(c) & set(o)) / len(c) for c in side for m in c for o in others if m in o]
        return sum(shares), sum(map(len, side))

    def aligned(likeness) -> float:
        few, many = sorted((key, response), key=len)
        orders = itertools.permutations(many, len(few))
        return max(sum(likeness(set(a), set(b)) for a, b in zip(few, order, strict=True)) for order in orders)

    def links(side: list[list[int]]) -> set[tuple[int, int]]:
        return {pair for c in side for pair in itertools.combinations(sorted(c), 2)}

    def lea(side: list[list[int]], others: list[list[int]]) -> tuple[float, int]:
        def resolution(c: list[int]) -> float:
            if len(c) == 1:
                return float(c in others)
            return len(links([c]) & links(others)) / len(links([c]))

        return sum(len(c) * resolution(c) for c in side), sum(map(len, side))

    every = {"MUC": muc, "B³": b3, "LEA": lea}
    for name, metric in every.items():
        assert found[name] == pytest.approx(f1(*metric(key, response), *metric(response, key))), name
    likeness = aligned(lambda a, b: 2 * len(a & b) / (len(a) + len(b)))
    assert found["CEAF-φ4"] == pytest.approx(f1(likeness, len(key), likeness, len(response)))
    common = aligned(lambda a, b: len(a & b))
    assert found["CEAF-φ3"] == pytest.approx(f1(common, sum(map(len, key)), common, sum(map(len, response))))
    assert found["CoNLL F1"] == pytest.approx((found["MUC"] + found["B³"] + found["CEAF-φ4"]) / 3)

    linked = [links(side) for side in document]
    others = [links([sum(side, [])]) - of for side, of in zip(document, linked, strict=True)]  # noqa: RUF017 - short
    parts = [(f1(len(a & b), len(a), len(a & b), len(b)), len(a)) for a, b in (linked, others)]
    counted = [value for value, there in parts if there]
    expected = sum(counted) / len(counted) if counted else 0.0
    assert found["BLANC"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("key", "response", "expected"),
    [
        ([], [], dict.fromkeys(["CoNLL F1", "LEA", "BLANC", "mentions"], 0.0)),
        ([["a", "b"]], [], dict.fromkeys(["CoNLL F1", "LEA", "BLANC", "mentions"], 0.0)),
        ([["a", "b"]], [["a", "b"]], dict.fromkeys(["CoNLL F1", "LEA", "BLANC", "mentions"], 1.0)),
        ([["a"], ["b"]], [["a"], ["b"]], {"MUC": 0.0, "B³": 1.0, "CEAF-φ4": 1.0, "LEA": 1.0, "BLANC": 1.0}),
        ([["a", "b"]], [["x", "y"]], dict.fromkeys(["CoNLL F1", "LEA", "BLANC", "mentions"], 0.0)),  # all twinless
    ],
)
def test_degenerate_answers(key: Clusters, response: Clusters, expected: dict[str, float]) -> None:
    found = values(key, response)
    assert {name: found[name] for name in expected} == expected


def test_a_mention_given_twice_counts_once() -> None:
    key: Sequence[list[str]] = [["a"], ["b", "c"], ["d", "e", "f"]]
    once = values(key, [["a"], ["b", "c", "x"], ["d", "y"], ["z"]])
    assert values(key, [["a"], ["b", "c", "x"], ["d", "y"], ["b", "z"]]) == once
    with pytest.raises(AtinukeError, match="the mention b is in two clusters of the key"):
        table([["a", "b"], ["b"]], [])


def test_documents_are_summed() -> None:
    """Official figures are of the sums over documents, not means of figures."""
    one, other = ([["a", "b", "c"]], [["a", "b"]]), ([["a", "b"]], [["a", "b"]])
    score = coreference([one, other])[1]
    assert (score.name, score.rows.sum(0).tolist()) == ("MUC", [2, 3, 2, 2])
    assert score.value == pytest.approx(0.8)
