"""From logits to the next token of every row: what people set, the filters, and the draw."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Self

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from atinuke.core.errors import AtinukeError, Mistake
from atinuke.core.names import close
from atinuke.pipelines.section import Section

INVALID = -1  # in place of a token, where the logits are not numbers


class Settings(Section):
    """How to generate. `temperature` 0 is greedy: the likeliest token; 1 draws from the model's own distribution.

    Before the draw, in this order: tokens of the text so far are made less likely by `repetition_penalty` (Keskar et
    al., 2019; 1 is none), the logits are divided by the temperature, and only the `top_k` likeliest tokens stay, and
    of these the likeliest whose probabilities add up to `top_p` (Holtzman et al., 2020). A `stop` string ends the text
    and is not part of it. More than one of `beams` search for the likeliest text: see `beams.search`.
    """

    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    top_k: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    beams: Annotated[int, Field(ge=1, le=256)] = 1

    @model_validator(mode="after")
    def _greedy_draws_nothing(self) -> Self:
        if self.temperature == 0 and (self.top_k or self.top_p) is not None:
            raise ValueError(
                "`top_k` and `top_p` have no effect at `temperature` 0: raise the temperature or leave them out"
            )
        if self.beams > 1 and (self.temperature > 0 or self.repetition_penalty != 1):
            raise ValueError(
                "`beams` search for the likeliest text: set `temperature` to 0 and leave `repetition_penalty` at 1"
            )
        return self


def settings(**values: Any) -> Settings:
    """Settings from what a person gave.

    Raises:
        AtinukeError: with every value that is unknown or does not fit.
    """
    try:
        return Settings(**values)
    except ValidationError as error:
        raise AtinukeError(*(_mistake(detail) for detail in error.errors(include_url=False))) from None


def _mistake(detail: Any) -> Mistake:
    name = ".".join(map(str, detail["loc"]))
    match detail["type"]:
        case "extra_forbidden":
            return Mistake(f"generation has no setting `{name}`", fix=close(name, Settings.model_fields))
        case "value_error":
            what, _, fix = str(detail["ctx"]["error"]).partition(": ")
            return Mistake(what, fix=fix or None)
    return Mistake(f"`{name}`: {detail['msg']}", details=(f"got {detail['input']!r}",))


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
    """Chooses the next token of each row of a batch.

    The draws of a row depend on the seed, on its prompt and on how many rows above have the same prompt, and on
    nothing else: a row does not notice its neighbours, and prompts that repeat do not repeat their texts.
    """

    def __init__(self, settings: Settings, prompts: Sequence[Sequence[int]], device: torch.device) -> None:
        self.settings = settings
        self.text: Tensor | None = None
        self.draws: Tensor | None = None
        if settings.repetition_penalty != 1:
            self.longest = max(map(len, prompts))
            length = self.longest + settings.max_new_tokens
            # Rows are filled up with a token that they hold anyway: to penalise it again changes nothing.
            rows = [[*prompt, *[prompt[0]] * (length - len(prompt))] for prompt in prompts]
            self.text = torch.tensor(rows, device=device)
        if settings.temperature > 0:
            draws = [_draws(settings, prompt, prompts[:row].count(prompt)) for row, prompt in enumerate(prompts)]
            self.draws = torch.stack(draws).to(device)

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


def _draws(settings: Settings, prompt: Sequence[int], copy: int) -> Tensor:
    """Uniform numbers from 0 to 1, one for each new token of a row."""
    digest = hashlib.sha256(repr((settings.seed, list(prompt), copy)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    return torch.rand(settings.max_new_tokens, dtype=torch.float64, generator=generator)
