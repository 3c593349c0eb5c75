"""Texts that were written against those that were wanted: chrF (Popović, 2015) and BLEU (Papineni et al., 2002), as
sacrebleu counts them; needs `atinuke[evaluation]`."""

from collections.abc import Sequence
from dataclasses import dataclass

from atinuke.core.errors import fail

SAMPLES = 3


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
