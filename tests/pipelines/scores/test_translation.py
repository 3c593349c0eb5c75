"""The scores of texts: perfect, copied and in between, as sacrebleu's functions count them."""

import pytest
import sacrebleu

from atinuke.pipelines.scores.translation import TranslationSample, translation

SOURCES = ["good morning to all of you", "the child went to school", "come and eat with us", "it is raining now"]
RIGHT = ["ẹ káàárọ̀ gbogbo yín", "ọmọ náà lọ sí ilé ìwé", "wá jẹun pẹ̀lú wa", "òjò ń rọ̀ nísinsìnyí báyìí"]
WRITTEN = ["ẹ káàárọ̀ gbogbo yín", "ọmọ náà lọ sí oko lónìí", "wá jẹun", "òjò ń rọ̀"]


def test_the_scores_are_those_of_sacrebleu() -> None:
    found = translation(WRITTEN, RIGHT, SOURCES)
    assert found.model.chrf == pytest.approx(sacrebleu.corpus_chrf(WRITTEN, [RIGHT]).score)
    assert found.model.bleu == pytest.approx(sacrebleu.corpus_bleu(WRITTEN, [RIGHT]).score)
    assert found.copied is not None
    assert found.copied.chrf == pytest.approx(sacrebleu.corpus_chrf(SOURCES, [RIGHT]).score)
    assert found.copied.chrf < found.model.chrf < 100
    assert found.n == 4
    assert len(found.samples) == 3
    assert found.samples[1] == TranslationSample(SOURCES[1], RIGHT[1], WRITTEN[1])
    assert found.signatures[0].startswith("chrF nrefs:1|")


def test_perfect_texts_score_a_hundred() -> None:
    found = translation(RIGHT, RIGHT, None)
    assert (found.model.chrf, found.model.bleu, found.copied) == (pytest.approx(100), pytest.approx(100), None)
