"""How probable a decoder finds texts: perplexity per token and per word, and bits per byte.

atinuke evaluate runs/demo --task perplexity --data held-out.txt
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import model_validator
from rich.console import Console
from rich.progress import track

from atinuke.compile.step import can_step
from atinuke.core.errors import fail
from atinuke.pipelines.likelihood import Pair, likelihoods
from atinuke.pipelines.run import Trained, writer
from atinuke.pipelines.scores.likelihood import likelihood
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.task import Item, Positive, Untrained
from atinuke.pipelines.text import Split, documents


class Perplexity(Untrained):
    """Texts as `data` of a recipe reads them: .txt, JSON lines with the text in `field`, Parquet; `split` says whether
    a .txt file is one text or a paragraph is.

    A text begins behind the token that begins texts, or where the model has none the one that ends them, whose own
    probability does not count. One that is longer than the model reads, or than `length`, is read in windows that begin
    `stride` tokens apart (half a window, unless given), so that every token but those of the first window is told from
    at least a window less the stride. All tokens count once.
    """

    name: Literal["perplexity"]
    length: Positive = 1024
    stride: Positive | None = None
    field: str = "text"
    split: Split = "file"

    @model_validator(mode="after")
    def _windows_overlap(self) -> Self:
        if self.stride is not None and self.stride > self.length:
            raise ValueError(f"`stride` {self.stride} must not be more than `length` {self.length}")
        return self

    def load(self, file: Path) -> list[Item]:
        found = enumerate(documents(file, self.field, self.split), 1)
        return [Item(f"{file.name}:{n}", str(file), text, text, {"file": file.name}) for n, text in found]

    def predict(self, run: Trained, folder: Path, items: Sequence[Item], console: Console) -> list[Any]:
        if not can_step(run.checked):
            raise fail("writes no texts", where=str(folder), fix="name a decoder")
        found = writer(run, folder)
        if found.given:
            what = "reads something beside its texts"
            raise fail(what, f"it needs: {', '.join(found.given)}", where=str(folder), fix="name a decoder")
        begin = found.begin or (found.prefix,)
        window = min(self.length, found.context)
        told = []
        for item in track(items, "measuring", console=console, transient=True):
            tokens = found.tokenizer.encode(item.given)
            sums = likelihoods(found.model, self.windows(begin, tokens, window), window, self.batch)
            told.append({"nats": -sum(total for total, _ in sums), "tokens": len(tokens)})
        return told

    def windows(self, begin: Sequence[int], tokens: Sequence[int], window: int) -> list[Pair]:
        """The tokens of a text in parts, each with those that are read before it."""
        stride = min(self.stride or max(1, window // 2), window)
        starts = [0, *range(window, len(tokens), stride)]
        ends = [*starts[1:], len(tokens)]
        whole = [*begin, *tokens]
        spans = zip(starts, ends, strict=True) if tokens else ()
        return [(whole[max(0, at + len(begin) - window) : at + len(begin)], tokens[at:end]) for at, end in spans]

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        nats = np.array([one["nats"] for one in predictions], np.float64)
        tokens = np.array([one["tokens"] for one in predictions])
        words = np.array([len(item.gold.split()) for item in items])
        return likelihood(nats, tokens, words, np.array([len(item.gold.encode()) for item in items]))
