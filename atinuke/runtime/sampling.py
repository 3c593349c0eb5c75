"""From logits to the next token of every row: what people set, the filters, and the draw."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from atinuke.core.errors import AtinukeError, Mistake, raise_all
from atinuke.core.names import close

Logits = NDArray[np.floating[Any]]
Tokens = NDArray[np.int64]

INVALID = -1  # in place of a token, where the logits are not numbers


@dataclass(frozen=True)
class Settings:
    """How to generate. `temperature` 0 is greedy: the likeliest token; 1 draws from the model's own distribution.

    Before the draw, in this order: tokens of the text so far are made less likely by `repetition_penalty` (Keskar et
    al., 2019; 1 is none), the logits are divided by the temperature, and only the `top_k` likeliest tokens stay, and
    of these the likeliest whose probabilities add up to `top_p` (Holtzman et al., 2020). A `stop` string ends the text
    and is not part of it.

    Raises:
        AtinukeError: with every value that does not fit.
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        mistakes = [Mistake(f"`{name}`: {what}", details=(f"got {got!r}",)) for name, what, got in self._wrong()]
        raise_all(mistakes or self._at_odds())

    @classmethod
    def read(cls, **values: Any) -> Self:
        """Settings from what a person gave.

        Raises:
            AtinukeError: with every value that is unknown or does not fit.
        """
        known = [field.name for field in fields(cls)]
        unknown = [
            Mistake(f"generation has no setting `{name}`", fix=close(name, known))
            for name in values
            if name not in known
        ]
        try:
            found = cls(**{name: value for name, value in values.items() if name in known})
        except AtinukeError as error:
            raise AtinukeError(*unknown, *error.mistakes) from None
        raise_all(unknown)
        return found

    def _wrong(self) -> Iterator[tuple[str, str, object]]:
        """The values that do not fit by themselves: name, what is wrong, what came."""
        yield from whole("max_new_tokens", self.max_new_tokens, 1)
        yield from number("temperature", self.temperature, 0, above=False)
        if self.top_k is not None:
            yield from whole("top_k", self.top_k, 1)
        if self.top_p is not None:
            yield from number("top_p", self.top_p, 0, above=True, most=1)
        yield from number("repetition_penalty", self.repetition_penalty, 0, above=True)
        yield from whole("seed", self.seed, 0, 2**63 - 1)
        yield from texts("stop", self.stop)

    def _at_odds(self) -> Iterator[Mistake]:
        """The settings that do not go together."""
        if self.temperature == 0 and (self.top_k or self.top_p) is not None:
            yield Mistake(
                "`top_k` and `top_p` have no effect at `temperature` 0", fix="raise the temperature or leave them out"
            )


def whole(name: str, value: object, least: int, most: int | None = None) -> Iterator[tuple[str, str, object]]:
    """What is wrong with a whole number, if anything."""
    if not isinstance(value, int) or isinstance(value, bool):
        yield name, "must be a whole number", value
    elif value < least:
        yield name, f"must be at least {least:,}", value
    elif most is not None and value > most:
        yield name, f"must be at most {most:,}", value


def number(
    name: str, value: object, least: float, above: bool, most: float = math.inf
) -> Iterator[tuple[str, str, object]]:
    """What is wrong with a finite number, if anything."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        yield name, "must be a number", value
    elif not math.isfinite(value):
        yield name, "must be a finite number", value
    elif value < least or (above and value == least):
        yield name, f"must be {'above' if above else 'at least'} {least:g}", value
    elif value > most:
        yield name, f"must be at most {most:g}", value


def texts(name: str, value: object) -> Iterator[tuple[str, str, object]]:
    """What is wrong with a list of texts, if anything."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        yield name, "must be a list of texts", value
        return
    for i, text in enumerate(value):
        if not isinstance(text, str) or not text:
            yield f"{name}.{i}", "must be a text of at least 1 character", text


def draws(settings: Settings, prompts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Uniform numbers from 0 to 1, `[rows, max_new_tokens]`: one for each new token of a row.

    Those of a row depend on the seed, on its prompt and on how many rows above have the same prompt, and on nothing
    else: a row does not notice its neighbours, and prompts that repeat do not repeat their texts. The generator is
    Philox (Salmon et al., 2011), whose numbers are the same on every machine.
    """
    rows = []
    for row, prompt in enumerate(prompts):
        told = repr((settings.seed, list(prompt), list(prompts[:row]).count(prompt)))
        key = int.from_bytes(hashlib.sha256(told.encode()).digest()[:16], "big")
        rows.append(np.random.Generator(np.random.Philox(key=key)).random(settings.max_new_tokens))
    return np.stack(rows)


def text_table(settings: Settings, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The prompts with room for the new tokens, `[rows, longest + max_new_tokens]`. Rows are filled up with a token
    that they hold anyway: to penalise it again changes nothing."""
    length = max(map(len, prompts)) + settings.max_new_tokens
    return [[*prompt, *[prompt[0]] * (length - len(prompt))] for prompt in prompts]


def penalise(logits: Logits, text: Tokens, penalty: float) -> Logits:
    """Divides the positive logits of the tokens in `text[batch, sequence]` by the penalty, multiplies the negative."""
    scores = np.take_along_axis(logits, text, -1)
    changed = logits.copy()
    np.put_along_axis(changed, text, np.where(scores < 0, scores * penalty, scores / penalty).astype(logits.dtype), -1)
    return changed


def keep_top_k(logits: Logits, k: int) -> Logits:
    """Minus infinity for every token less likely than the k-th."""
    kth = logits.shape[-1] - min(k, logits.shape[-1])
    lowest = np.partition(logits, kth, -1)[..., kth : kth + 1]
    return np.where(logits < lowest, -np.inf, logits).astype(logits.dtype)


def keep_top_p(logits: Logits, p: float) -> Logits:
    """Minus infinity for all but the fewest likeliest tokens whose probabilities add up to at least p."""
    order = logits.argsort(-1, kind="stable")
    sums = _softmax(np.take_along_axis(logits, order, -1)).cumsum(-1, dtype=np.float64)
    dropped = sums.astype(logits.dtype) <= 1 - p
    dropped[..., -1] = False
    kept = logits.copy()
    np.put_along_axis(kept, order, np.where(dropped, -np.inf, np.take_along_axis(logits, order, -1)), -1)
    return kept


def shape(logits: Logits, text: Tokens | None, settings: Settings) -> Logits:
    """The logits `[batch, vocab_size]` to draw from, given the `text[batch, sequence]` that is not to be repeated."""
    if text is not None:
        logits = penalise(logits, text, settings.repetition_penalty)
    if settings.temperature > 0:
        logits = logits / np.asarray(settings.temperature, logits.dtype)
    if settings.top_k is not None:
        logits = keep_top_k(logits, settings.top_k)
    if settings.top_p is not None:
        logits = keep_top_p(logits, settings.top_p)
    return logits


@dataclass(frozen=True)
class Muted:
    """Tokens that a model never writes, and tokens that it does not begin with, as Whisper's are told."""

    always: tuple[int, ...] = ()
    first: tuple[int, ...] = ()

    def at(self, step: int, vocab_size: int) -> list[int]:
        """What may not be the new token number `step`, from 0."""
        return [token for token in {*self.always, *(self.first if step == 0 else ())} if token < vocab_size]


def mute(logits: Logits, muted: Muted, step: int) -> Logits:
    """Minus infinity in `logits[batch, vocab_size]` for what may not be the new token number `step`."""
    changed = logits.copy()
    changed[..., muted.at(step, logits.shape[-1])] = -np.inf
    return changed


class Sampler:
    """Chooses the next token of each row of a batch; see `draws` for what the choice depends on."""

    def __init__(self, settings: Settings, prompts: Sequence[Sequence[int]]) -> None:
        self.settings = settings
        self.text: Tokens | None = None
        self.draws: NDArray[np.float64] | None = None
        self.longest = max(map(len, prompts))
        if settings.repetition_penalty != 1:
            self.text = np.array(text_table(settings, prompts), np.int64)
        if settings.temperature > 0:
            self.draws = draws(settings, prompts)

    def __call__(self, logits: Logits, step: int) -> Tokens:
        """The tokens `[batch]` that follow, given `logits[batch, vocab_size]`; INVALID where these are not numbers."""
        logits = logits.astype(np.promote_types(logits.dtype, np.float32), copy=False)
        logits = shape(logits, self.text, self.settings)
        tokens = _likeliest(logits) if self.draws is None else _drawn(logits, self.draws[:, step])
        if self.text is not None:
            self.text[:, self.longest + step] = tokens.clip(min=0)
        return tokens


def _likeliest(logits: Logits) -> Tokens:
    return np.where(np.isnan(logits).any(-1), INVALID, logits.argmax(-1))


def _drawn(logits: Logits, draws: NDArray[np.float64]) -> Tokens:
    """The first token at which the sum of the probabilities exceeds the draw: never one of probability 0."""
    sums = _softmax(logits.astype(np.float64)).cumsum(-1)
    found = [
        INVALID if math.isnan(row[-1]) else row.searchsorted(draw * row[-1], side="right")
        for row, draw in zip(sums, draws, strict=True)
    ]
    return np.array(found, np.int64)


def _softmax(logits: Logits) -> Logits:
    with np.errstate(invalid="ignore"):  # minus infinity less itself, where nothing is possible
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        shares: Logits = powers / powers.sum(-1, keepdims=True)
        return shares
