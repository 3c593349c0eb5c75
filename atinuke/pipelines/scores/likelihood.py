"""How probable a language model finds texts: perplexity (Jelinek et al., 1977) and bits per byte.

Perplexity per token depends on the tokenizer; per word and bits per byte do not, so they compare models of different
tokenizers, provided that the nats are of all of the text.
"""

import math

import numpy as np
from numpy.typing import NDArray

from atinuke.core.errors import fail
from atinuke.pipelines.scores.score import Score

Counts = NDArray[np.int64]


def likelihood(nats: NDArray[np.float64], tokens: Counts, words: Counts, bytes_: Counts) -> tuple[Score, Score, Score]:
    """Perplexity per token, per word, and bits per byte, of rows `[n]` of text: `nats` is the sum of -ln p over a row's
    tokens. The end of a text is a token and has nats, but is no word and no byte.

    Raises:
        AtinukeError: there is no token, or nats are negative or no number.
    """
    bad = np.flatnonzero(~(np.isfinite(nats) & (nats >= 0)))
    if len(bad):
        raise fail("the nats of a text are a number that is not negative", f"row {bad[0] + 1} has {nats[bad[0]]}")
    if not tokens.sum():
        raise fail("there is no token whose probability could be told")
    return (
        Score("perplexity per token", "perplexity", _rows(nats, tokens)),
        Score("perplexity per word", "perplexity", _rows(nats, words)),
        Score("bits per byte", "rate", _rows(nats / math.log(2), bytes_)),
    )


def _rows(amount: NDArray[np.float64], of: Counts) -> NDArray[np.float64]:
    return np.stack([amount, of.astype(np.float64)], 1)
