"""GAP's score against scikit-learn's: each pronoun asks twice, and F1 is of all that was asked, by gender too."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from atinuke.pipelines.evaluate_task import evaluate_predictions

HEAD = "ID\tText\tPronoun\tPronoun-offset\tA\tA-offset\tA-coref\tB\tB-offset\tB-coref\tURL\n"
FEMININE, MASCULINE = ("she", "her", "hers"), ("he", "his", "him")
ASKED = st.tuples(
    st.sampled_from((*FEMININE, *MASCULINE, "She", "HIS")), *[st.booleans()] * 4
)  # pronoun, what is right of A and of B, what was said


@settings(max_examples=25, deadline=None)
@given(st.lists(ASKED, min_size=1, max_size=12))
def test_f1_is_that_of_all_decisions(tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[Any, ...]]) -> None:
    folder = tmp_path_factory.mktemp("gap")
    rows = [
        f"d-{i}\tAnn Bea {word}\t{word}\t8\tAnn\t0\t{str(a).upper()}\tBea\t4\t{str(b).upper()}\thttp://x\n"
        for i, (word, a, b, _, _) in enumerate(asked)
    ]
    (folder / "gold.tsv").write_text(HEAD + "".join(rows))
    said = "".join(f"d-{i}\t{a}\t{b}\n" for i, (_, _, _, a, b) in reversed(list(enumerate(asked))))
    (folder / "said.tsv").write_text(said)
    found = evaluate_predictions(folder / "said.tsv", "gap", [folder / "gold.tsv"])
    slices = {one.value: one for one in found.slices}
    for scores, words in (
        (found.scores, FEMININE + MASCULINE),
        (slices["feminine"].scores if "feminine" in slices else (), FEMININE),
        (slices["masculine"].scores if "masculine" in slices else (), MASCULINE),
    ):
        of = [one for one in asked if one[0].lower() in words]
        right, guess = ([one[i] for one in of for i in places] for places in ((1, 2), (3, 4)))
        assert bool(of) == bool(scores)
        for score in scores:
            assert score.interval.value == pytest.approx(f1_score(right, guess, zero_division=0), abs=1e-12)


def test_what_is_not_asked_is_no_prediction(tmp_path: Path) -> None:
    row = "d-1\tAnn Bea she\tshe\t8\tAnn\t0\tTRUE\tBea\t4\tFALSE\thttp://x\n"
    (tmp_path / "gold.tsv").write_text(HEAD + row)
    for content, told in (
        ("d-1\tTRUE\n", "said.tsv:1  is not an id, and TRUE or FALSE for A and for B"),
        ("d-1\tTRUE\tNO\n", "said.tsv:1  is not an id, and TRUE or FALSE for A and for B"),
        ("d-1\tTRUE\tFALSE\nd-1\tTRUE\tTRUE\n", "said.tsv:2  has the id `d-1` twice"),
        ("d-2\tTRUE\tFALSE\n", "its ids are not those of the data"),
    ):
        (tmp_path / "said.tsv").write_text(content)
        with pytest.raises(Exception, match=told):
            evaluate_predictions(tmp_path / "said.tsv", "gap", [tmp_path / "gold.tsv"])
