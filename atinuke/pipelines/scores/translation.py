"""Texts that were written against those that were wanted: chrF (Popović, 2015) and BLEU (Papineni et al., 2002), as
sacrebleu counts them; needs `atinuke[evaluation]`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atinuke.core.errors import fail
from atinuke.pipelines.scores.score import Score

SAMPLES = 3
ORDER = 6  # longest n-grams of chrF, in characters


@dataclass(frozen=True)
class TextFigures:
    """Over all texts at once, 0 to 100."""

    chrf: float
    bleu: float


@dataclass(frozen=True)
class TranslationSample:
    """A row; `source` is None where it is no text."""

    source: str | None
    right: str
    written: str


@dataclass(frozen=True)
class TranslationFigures:
    """`copied` is what copying the sources would score: a model that is not above it has learned nothing. `signatures`
    say how sacrebleu counted. `samples` are the first rows."""

    model: TextFigures
    copied: TextFigures | None
    n: int
    signatures: tuple[str, ...]
    samples: tuple[TranslationSample, ...]


def translation(written: Sequence[str], right: Sequence[str], sources: Sequence[str] | None) -> TranslationFigures:
    """The figures of at least one text; `sources` are None where they are no texts.

    Raises:
        AtinukeError: sacrebleu is not installed.
    """
    try:
        import sacrebleu
    except ImportError:
        raise fail("chrF and BLEU need sacrebleu", fix="pip install 'atinuke[evaluation]'") from None
    chrf, bleu = sacrebleu.CHRF(), sacrebleu.BLEU()

    def figures(texts: Sequence[str]) -> TextFigures:
        return TextFigures(*(metric.corpus_score(texts, [right]).score for metric in (chrf, bleu)))

    model, copied = figures(written), figures(sources) if sources is not None else None
    samples = tuple(
        TranslationSample(sources[i] if sources is not None else None, right[i], written[i])
        for i in range(min(SAMPLES, len(right)))
    )
    signatures = tuple(f"{name} {metric.get_signature()}" for name, metric in (("chrF", chrf), ("BLEU", bleu)))
    return TranslationFigures(model, copied, len(right), signatures, samples)


def chrf(written: Sequence[str], right: Sequence[str]) -> Score:
    """chrF, as sacrebleu has it by default: n-grams of up to 6 characters, white space left out. What is written counts
    only in orders that its right text is long enough for."""
    rows = [
        number
        for said, wanted in zip(written, right, strict=True)
        for order in range(1, ORDER + 1)
        for a, b in [(_ngrams(said, order), _ngrams(wanted, order))]
        for number in (a.total() if b else 0, b.total(), (a & b).total())
    ]
    return Score("chrF", "chrf", np.array(rows, np.float64).reshape(-1, 3 * ORDER))


def bleu(written: Sequence[str], right: Sequence[str]) -> Score:
    """BLEU, as sacrebleu has it by default.

    Raises:
        AtinukeError: sacrebleu is not installed.
    """
    try:
        import sacrebleu
    except ImportError:
        raise fail("BLEU needs sacrebleu", fix="pip install 'atinuke[evaluation]'") from None
    metric = sacrebleu.BLEU(effective_order=True)  # of a sentence it is only counted
    found = [metric.sentence_score(said, [wanted]) for said, wanted in zip(written, right, strict=True)]
    rows = [[one.sys_len, one.ref_len, *np.stack([one.counts, one.totals], 1).ravel()] for one in found]
    return Score("BLEU", "bleu", np.array(rows, np.float64).reshape(-1, 10))


def _ngrams(text: str, order: int) -> Counter[str]:
    letters = "".join(text.split())
    return Counter(letters[i : i + order] for i in range(len(letters) - order + 1))
