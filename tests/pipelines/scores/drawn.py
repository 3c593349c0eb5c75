"""Sets of predictions as Hypothesis draws them, what is degenerate included."""

from typing import Any

from hypothesis import strategies as st

WORDS = ("the", "a", "cat", "Cat.", "dog", "1,000", "-", "!", "an", "", "U.S.", "naïve", "The", "  ", "x-y")
LABELS = ("A0", "A1", "A1", "AM-TMP", "C-A0", "C-A1", "R-A1", "C-V")
CHANCES = (0.0, 0.1, 0.5, 0.9, 1.0)

Case = dict[str, Any]


@st.composite
def answers(draw: st.DrawFn) -> Case:
    """Questions with right answers (`right`; some have none), what is said, and probabilities of no answer."""
    text = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
    case: Case = {"right": {}, "said": {}, "no_answer": {}}
    for number in range(draw(st.integers(1, 8))):
        name = str(number)
        right = case["right"][name] = draw(st.lists(text, max_size=3))
        case["said"][name] = draw(st.one_of(text, st.just(""), st.sampled_from(right or [""])))
        case["no_answer"][name] = draw(st.one_of(st.sampled_from(CHANCES), st.floats(0, 1)))
    return case


@st.composite
def clusters(draw: st.DrawFn) -> Case:
    """The clusters of a `key` and of a `response`, over mentions that are words: missing, invented and twinless ones,
    singletons, one cluster, and nothing."""
    words = draw(st.integers(1, 12))

    def side() -> list[list[int]]:
        most = draw(st.sampled_from([1, 2, 4, words]))
        cluster = st.one_of(st.none(), st.integers(0, most - 1)) if draw(st.booleans()) else st.integers(0, most - 1)
        of = draw(st.lists(cluster, min_size=words, max_size=words))
        found = [[word for word, one in enumerate(of) if one == number] for number in range(most)]
        return [one for one in found if one]

    key = side() if draw(st.integers(0, 15)) else []
    kind = draw(st.integers(0, 9))
    return {"key": key, "response": [] if kind == 9 else [list(one) for one in key] if kind == 8 else side()}


@st.composite
def propositions(draw: st.DrawFn) -> Case:
    """Propositions of up to ten words: spans that are `right`, and those `said`, None where that is missing."""
    right, said, words = [], [], []
    for _ in range(draw(st.integers(1, 6))):
        length = draw(st.integers(1, 10))
        verb = draw(st.integers(0, length - 1))
        one = _spans(draw, length, verb)
        other = draw(st.sampled_from(["same", "missing", "changed", "changed", "drawn", "drawn"]))
        right.append(one)
        words.append(length)
        if other == "changed":
            said.append([(a, b, draw(st.sampled_from(LABELS)) if c != "V" else c) for a, b, c in one])
        else:
            said.append({"same": one, "missing": None}.get(other) if other != "drawn" else _spans(draw, length, verb))
    return {"right": right, "said": said, "words": words}


def _spans(draw: st.DrawFn, length: int, verb: int) -> list[tuple[int, int, str]]:
    found, at = [], 0
    while at < length:
        end = min(draw(st.integers(at + 1, at + 3)), verb if at < verb else length)
        if at == verb:
            found.append((verb, verb + 1, "V"))
            end = verb + 1
        elif draw(st.booleans()):
            found.append((at, end, draw(st.sampled_from(LABELS))))
        at = end
    return found
