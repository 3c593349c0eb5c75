"""A thousand drawn sets of predictions for each task, scored as the official programs score them."""

import pytest

from atinuke.pipelines.scores.coreference import coreference
from atinuke.pipelines.scores.roles import roles
from atinuke.pipelines.scores.squad import squad1, squad2
from tests.pipelines.scores.official import SETS, THRESHOLD, recorded

CLUSTERS = {"muc": "MUC", "bcub": "B³", "ceafm": "CEAF-φ3", "ceafe": "CEAF-φ4", "lea": "LEA"}


@pytest.mark.parametrize("name", ["squad", "coreference", "roles"])
def test_there_are_a_thousand(name: str) -> None:
    cases = [repr(case) for case, _ in recorded(name)]
    assert len(set(cases)) == len(cases) == SETS


def test_answers() -> None:
    for case, told in recorded("squad"):
        right, said, chance = case["right"], case["said"], case["no_answer"]
        if official := told.get("1.1"):
            asked = {name: texts for name, texts in right.items() if texts}
            exact, f1 = squad1(asked, {name: text for name, text in said.items() if chance[name] < 1})
            assert (100 * exact.value, 100 * f1.value) == pytest.approx((official["exact_match"], official["f1"]))
        official, found = told["2.0"], squad2(right, said, chance, THRESHOLD)
        assert found.best_exact
        assert found.best_f1
        ours = {"best_exact": 100 * found.best_exact.value, "best_exact_thresh": found.best_exact.at}
        ours |= {"best_f1": 100 * found.best_f1.value, "best_f1_thresh": found.best_f1.at}
        for part, pair in (("", found.scores), ("HasAns_", found.answered), ("NoAns_", found.unanswerable)):
            if pair:
                ours |= {f"{part}exact": 100 * pair[0].value, f"{part}f1": 100 * pair[1].value}
        assert ours == pytest.approx({name: value for name, value in official.items() if "total" not in name}), case


def test_clusters() -> None:
    for case, told in recorded("coreference"):
        found = {score.name: score for score in coreference([(case["key"], case["response"])])}
        for metric, name in CLUSTERS.items():
            recall, of, precision, out_of = told[metric][:4]
            assert found[name].rows.sum(0) == pytest.approx([recall, of, precision, out_of], abs=1e-9), (case, metric)
        for metric, name in {**CLUSTERS, "mentions": "mentions", "blanc": "BLANC"}.items():
            if metric != "lea":  # of that its authors give counts alone
                printed = told[metric][4]  # two places of the per cent, the rest cut off
                assert printed - 1e-9 <= 100 * found[name].value < printed + 0.01 + 1e-9, (case, metric)


def test_roles() -> None:
    for case, told in recorded("roles"):
        found = roles(case["right"], case["said"])
        assert 100 * found.perfect == pytest.approx(told["perfect"], abs=0.0051), case
        ours = {one.name: one for one in found.roles} | {"Overall": found.overall}
        assert {"Overall", *ours} == set(told) - {"perfect", "V"}, case
        for name, one in ours.items():
            figures = [one.right, one.excess, one.missed, *(100 * x for x in (one.precision, one.recall, one.f1))]
            assert figures == pytest.approx(told[name], abs=0.0051), (case, name)
