"""From logits to the next token of every row, on the model's device: the same tokens as `atinuke.runtime.sampling`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atinuke.core.errors import Mistake
from atinuke.runtime import sampling
from atinuke.runtime.sampling import INVALID, Muted, draws, number, text_table, texts, whole


@dataclass(frozen=True)
class Settings(sampling.Settings):
    """How to generate: as the runtime does, by a search, or within a language.

    More than one of `beams` search for the likeliest texts, of which the `best` so many are given; `length_penalty`
    above 0 is for longer texts, below 0 for shorter ones: see `beams.search`. What is written matches the pattern
    `regex` from end to end (the syntax of Rust's regex), is one of the `choices`, or is JSON by the JSON Schema
    `schema` (itself JSON): see `constrained`.
    """

    beams: int = 1
    best: int = 1
    length_penalty: float = 1.0
    regex: str | None = None
    choices: tuple[str, ...] = ()
    schema: str | None = None

    def _wrong(self) -> Iterator[tuple[str, str, object]]:
        yield from super()._wrong()
        yield from whole("beams", self.beams, 1, 256)
        yield from whole("best", self.best, 1)
        yield from number("length_penalty", self.length_penalty, -100, above=False, most=100)
        for name in ("regex", "schema"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                yield name, "must be a text of at least 1 character", value
        yield from texts("choices", self.choices)

    def _at_odds(self) -> Iterator[Mistake]:
        yield from super()._at_odds()
        if self.best > self.beams:
            yield Mistake(f"`best` {self.best} is more than `beams` {self.beams}", fix="search with more beams")
        if self.beams == 1 and self.length_penalty != 1:
            yield Mistake("`length_penalty` has no effect without a search", fix="set `beams`, or leave it out")
        languages = [name for name in ("regex", "choices", "schema") if getattr(self, name)]
        if len(languages) > 1:
            yield Mistake(f"a text cannot be held to `{languages[0]}` and `{languages[1]}` at once", fix="give one")
        if languages and self.stop:
            yield Mistake(f"`stop` could end a text in the middle of `{languages[0]}`", fix="leave it out")
        if self.beams > 1 and (self.temperature > 0 or self.repetition_penalty != 1):
            yield Mistake(
                "`beams` search for the likeliest text",
                fix="set `temperature` to 0 and leave `repetition_penalty` at 1",
            )


settings = Settings.read


def mute(scores: Tensor, muted: Muted, step: int) -> Tensor:
    """Minus infinity in `scores[..., vocab_size]` for what may not be the new token number `step`, from 0."""
    there = torch.tensor(muted.at(step, scores.shape[-1]), dtype=torch.int64, device=scores.device)
    return scores.index_fill(-1, there, float("-inf"))


def penalise(logits: Tensor, text: Tensor, penalty: float) -> Tensor:
    """Divides the positive logits of the tokens in `text[batch, sequence]` by the penalty, multiplies the negative."""
    scores = logits.gather(-1, text)
    return logits.scatter(-1, text, torch.where(scores < 0, scores * penalty, scores / penalty))


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Minus infinity for every token less likely than the k-th."""
    lowest = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < lowest, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Minus infinity for all but the fewest likeliest tokens whose probabilities add up to at least p."""
    ordered, order = logits.sort()
    dropped = ordered.softmax(-1).cumsum(-1) <= 1 - p
    dropped[..., -1] = False
    return logits.masked_fill(dropped.scatter(-1, order, dropped), float("-inf"))


def shape(logits: Tensor, text: Tensor | None, settings: Settings) -> Tensor:
    """The logits `[batch, vocab_size]` to draw from, given the `text[batch, sequence]` that is not to be repeated."""
    if text is not None:
        logits = penalise(logits, text, settings.repetition_penalty)
    if settings.temperature > 0:
        logits = logits / settings.temperature
    if settings.top_k is not None:
        logits = keep_top_k(logits, settings.top_k)
    if settings.top_p is not None:
        logits = keep_top_p(logits, settings.top_p)
    return logits


class Sampler:
    """Chooses the next token of each row of a batch; see `draws` for what the choice depends on."""

    def __init__(self, settings: Settings, prompts: Sequence[Sequence[int]], device: torch.device) -> None:
        self.settings = settings
        self.text: Tensor | None = None
        self.draws: Tensor | None = None
        self.longest = max(map(len, prompts))
        if settings.repetition_penalty != 1:
            self.text = torch.tensor(text_table(settings, prompts), device=device)
        if settings.temperature > 0:
            self.draws = torch.from_numpy(draws(settings, prompts)).to(device)

    def __call__(self, logits: Tensor, step: int) -> Tensor:
        """The tokens `[batch]` that follow, given `logits[batch, vocab_size]`; INVALID where these are not numbers."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits = shape(logits, self.text, self.settings)
        tokens = _likeliest(logits) if self.draws is None else _drawn(logits, self.draws[:, step : step + 1])
        if self.text is not None:
            self.text[:, self.longest + step] = tokens.clamp(min=0)
        return tokens


def _likeliest(logits: Tensor) -> Tensor:
    best, tokens = logits.max(-1)
    return tokens.where(~best.isnan(), INVALID)


def _drawn(logits: Tensor, draws: Tensor) -> Tensor:
    """The first token at which the sum of the probabilities exceeds the draw: never one of probability 0."""
    sums = logits.softmax(-1, dtype=torch.float64).cumsum(-1)
    total = sums[:, -1:]
    tokens = torch.searchsorted(sums, draws * total, right=True)
    return tokens.where(~total.isnan(), INVALID)[:, 0]
