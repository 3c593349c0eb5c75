"""From scores of frames to labels: the reading that belongs to loss.ctc (Graves et al., 2006)."""

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from atinuke.core.errors import fail
from atinuke.runtime.ctc import collapsed

NEVER = float("-inf")


class Reading(NamedTuple):
    """Labels, and the logarithm of the probability of all alignments that spell them."""

    labels: tuple[int, ...]
    log_probability: float


def greedy(scores: Tensor, mask: Tensor | None = None, blank: int | None = None) -> list[tuple[int, ...]]:
    """The labels of the likeliest alignment of each row: the best class of every frame, of equal neighbours one, and no
    blanks.

    Args:
        scores: `[batch, frames, classes]`, normalised or not.
        mask: Bool `[batch, frames]`: the frames that count; all when None.
        blank: the class that stands for no label; the last when None, as for the objective `ctc`.

    Raises:
        AtinukeError: a size does not fit, or a score is NaN.
    """
    blank = _blank(scores, blank)
    return [tuple(collapsed(rows.argmax(-1).tolist(), blank)) for rows in _rows(scores, mask)]


def beam_search(
    scores: Tensor, mask: Tensor | None = None, blank: int | None = None, beams: int = 8
) -> list[list[Reading]]:
    """The likeliest labels of each row, best first: prefixes are kept with the probability of all their alignments, the
    best `beams` of them after each frame (Hannun et al., 2014). Exact where `beams` leaves none out.

    `scores`, `mask`, `blank` and errors are those of `greedy`.
    """
    if beams < 1:
        raise fail("`beams` must be at least 1", f"got {beams}")
    blank = _blank(scores, blank)
    return [_search(rows.log_softmax(-1).tolist(), blank, beams) for rows in _rows(scores, mask)]


def _blank(scores: Tensor, blank: int | None) -> int:
    if scores.dim() != 3:
        raise fail("scores must be [batch, frames, classes]", f"got shape {list(scores.shape)}")
    classes = scores.shape[2]
    if blank is not None and not 0 <= blank < classes:
        raise fail(f"blank must be 0 to {classes - 1}, the classes of the scores", f"got {blank}")
    return classes - 1 if blank is None else blank


def _rows(scores: Tensor, mask: Tensor | None) -> Iterator[Tensor]:
    """The frames of each row that count, in float64."""
    if mask is not None and (mask.dtype != torch.bool or mask.shape != scores.shape[:2]):
        raise fail(
            f"mask must be bool{list(scores.shape[:2])}: a flag for every frame of the scores",
            f"got {mask.dtype} of shape {list(mask.shape)}",
        )
    for i, row in enumerate(scores.detach().cpu().double()):
        rows = row if mask is None else row[mask[i].cpu()]
        if rows.isnan().any():
            raise fail(f"the scores of row {i} hold NaN", fix="look for the first node that gives NaN")
        yield rows


def _search(frames: list[list[float]], blank: int, beams: int) -> list[Reading]:
    # Of each prefix: the log-probability of its alignments that end in a blank, and of those that end in its last
    # label.
    kept: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, NEVER)}
    for frame in frames:
        grown: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [NEVER, NEVER])
        for prefix, (ends_blank, ends_label) in kept.items():
            ends = _sum(ends_blank, ends_label)
            same = grown[prefix]
            same[0] = _sum(same[0], ends + frame[blank])
            if prefix:
                same[1] = _sum(same[1], ends_label + frame[prefix[-1]])
            for label, log_probability in enumerate(frame):
                if label != blank:
                    # Behind itself a label is a new one only where a blank stood between.
                    start = ends_blank if prefix and label == prefix[-1] else ends
                    longer = grown[(*prefix, label)]
                    longer[1] = _sum(longer[1], start + log_probability)
        best = sorted(grown.items(), key=lambda item: _sum(*item[1]), reverse=True)[:beams]
        kept = {prefix: (of[0], of[1]) for prefix, of in best if _sum(*of) > NEVER}
    return [Reading(prefix, _sum(*of)) for prefix, of in sorted(kept.items(), key=lambda item: -_sum(*item[1]))]


def _sum(a: float, b: float) -> float:
    """The logarithm of the sum of two probabilities."""
    high, low = (a, b) if a > b else (b, a)
    return high if low == NEVER else high + math.log1p(math.exp(low - high))
