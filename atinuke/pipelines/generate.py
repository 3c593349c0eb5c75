"""Continues texts: a batch of prompts in, their continuations out, while they are written if wanted."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from atinuke.compile.inductor import compile_step
from atinuke.core.errors import Mistake, fail, raise_all
from atinuke.core.names import close
from atinuke.pipelines.beams import search
from atinuke.pipelines.decode import Decoder, Step
from atinuke.pipelines.sampling import INVALID, Sampler, Settings
from atinuke.pipelines.tokenizer import Tokenizer

Reason = Literal["end_of_text", "stop", "length"]
OnText = Callable[[int, str], None]


@dataclass(frozen=True)
class Continuation:
    """What came after a prompt. `text` ends before the stop string that ended it, `tokens` before the end of text."""

    text: str
    tokens: tuple[int, ...]
    reason: Reason


def generate(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    settings: Settings,
    context: int,
    on_text: OnText | None = None,
    compiled: bool = False,
    given: Mapping[str, Tensor] | None = None,
    begins: bool = False,
) -> list[Continuation]:
    """Continues each prompt by at most `settings.max_new_tokens` tokens.

    `given` is what the model's `prepare` reads, such as the source of an encoder-decoder, a row for each prompt. The
    texts of such a model, and of one that `begins`, begin with the tokenizer's end-of-text token, so that a prompt may
    be empty; it counts among the tokens of the text.

    `model` has `state` and `step`, as a built graph has; `context` is the longest text it reads, in tokens. A row does
    not depend on the others. `on_text(row, text)` gets each piece of text as soon as it is certain: whole characters,
    and nothing that may turn out to be part of a stop string. `compiled` compiles the step first, which takes half a
    minute and makes long texts faster.

    Raises:
        AtinukeError: the model has no step form or no `logits`, what it reads is not given, a prompt is empty or does
            not fit into the context together with the new tokens, or the logits are not numbers.
    """
    given = given or {}
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    _require_step(model)
    begins = _require_given(model, given, len(prompts)) or begins
    begin = [tokenizer.end_of_text] if begins else []
    begun = [[*begin, *prompt] for prompt in encoded]
    raise_all(_misfits(begun, settings, context))
    if not encoded:
        return []
    rows = [_Row(number, prompt, tokenizer, settings.stop, on_text) for number, prompt in enumerate(encoded)]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            step = compile_step(model) if compiled else None
            if settings.beams > 1:
                _search(model, begun, given, rows, settings, step)
            else:
                _decode(Decoder(model, begun, step, given), rows, settings)
    finally:
        model.train(training)
    return [row.continuation() for row in rows]


def _decode(decoder: Decoder, rows: "list[_Row]", settings: Settings) -> None:
    """Steps the whole batch until every row is finished; what a finished row still draws is ignored."""
    sampler = Sampler(settings, decoder.prompts, decoder.device)
    tokens = sampler(decoder.prefill(), 0)
    for step in range(1, settings.max_new_tokens + 1):
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.add(token)
        if step == settings.max_new_tokens or all(row.reason for row in rows):
            break
        tokens = sampler(decoder.next(tokens), step)
    for row in rows:
        row.finish("length")


def _search(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    given: Mapping[str, Tensor],
    rows: "list[_Row]",
    settings: Settings,
    step: Step | None,
) -> None:
    """Writes each row's likeliest text once it is found."""
    end = rows[0].end_of_text
    for row, tokens in zip(
        rows, search(model, prompts, given, settings.beams, settings.max_new_tokens, end, step), strict=True
    ):
        for token in tokens:
            row.add(token)
        row.finish("length")


class _Row:
    """The text of one row while it is written; `reason` says why it is finished."""

    def __init__(
        self, number: int, prompt: Sequence[int], tokenizer: Tokenizer, stops: Sequence[str], on_text: OnText | None
    ) -> None:
        self.number = number
        self.end_of_text = tokenizer.end_of_text
        self.stops = stops
        self.on_text = on_text
        self.tokens: list[int] = []
        self.text = ""
        self.reason: Reason | None = None
        self._held = ""  # perhaps the beginning of a stop string
        self._stream = tokenizer.stream()
        for token in prompt:  # some tokenizers drop the space before a text's first word
            self._stream.feed(token)

    def add(self, token: int) -> None:
        """Takes the next token; a finished row ignores it."""
        if self.reason:
            return
        if token == INVALID:
            raise fail(
                f"row {self.number + 1} cannot go on after {len(self.tokens)} new tokens",
                "the model's logits are not numbers",
                fix="check the weights (training that diverged?), or use a wider dtype",
            )
        if token == self.end_of_text:
            self.finish("end_of_text")
        else:
            self.tokens.append(token)
            self._show(self._stream.feed(token))

    def finish(self, reason: Reason) -> None:
        """Shows what was held back; a finished row stays as it is."""
        if self.reason:
            return
        self._show(self._stream.finish())
        if not self.reason:
            self.reason = reason
            self._emit(self._held)

    def continuation(self) -> Continuation:
        assert self.reason is not None
        return Continuation(self.text, tuple(self.tokens), self.reason)

    def _show(self, text: str) -> None:
        """Adds text, up to the first stop string that is complete; holds back the longest beginning of one."""
        self._held += text
        found = [(at + len(stop), at) for stop in self.stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.reason = "stop"
            self._emit(self._held[: min(found)[1]])
            return
        beginnings = (stop[:length] for stop in self.stops for length in range(1, len(stop)))
        held = max((len(start) for start in beginnings if self._held.endswith(start)), default=0)
        certain = len(self._held) - held
        text, self._held = self._held[:certain], self._held[certain:]
        self._emit(text)

    def _emit(self, text: str) -> None:
        self.text += text
        if text and self.on_text:
            self.on_text(self.number, text)


def _require_step(model: nn.Module) -> None:
    if not callable(getattr(model, "step", None)) or not callable(getattr(model, "state", None)):
        raise fail(
            "this model cannot generate",
            "its graph has no step form",
            fix="use a graph that reads tokens and whose components all have step()",
        )


def _require_given(model: nn.Module, given: Mapping[str, Tensor], rows: int) -> bool:
    """Whether the model reads anything beside the text; refuses what is missing, unknown or of another batch."""
    prepare = getattr(model, "prepare", None)
    reads = inspect.signature(prepare).parameters if prepare else {}
    for name, tensor in given.items():
        if name not in reads:
            raise fail(f"the model's text does not depend on `{name}`", fix=close(name, reads))
        if len(tensor) != rows:
            raise fail(f"`{name}` has {len(tensor):,} rows for {rows:,} prompts", fix="give one for each prompt")
    for name, parameter in reads.items():
        if name not in given and parameter.default is parameter.empty:
            raise fail(f"the model needs `{name}`", f"given: {', '.join(given) or 'nothing'}", fix=f"give it `{name}`")
    return bool(reads)


def _misfits(prompts: Sequence[Sequence[int]], settings: Settings, context: int) -> list[Mistake]:
    mistakes = []
    for number, prompt in enumerate(prompts, 1):
        room = context - len(prompt)
        if not prompt:
            mistakes.append(
                Mistake(
                    f"prompt {number} is empty",
                    details=("the model needs a token to go on from",),
                    fix="begin the text yourself, if only with a line break",
                )
            )
        elif settings.max_new_tokens > room:
            wanted = f"it has {len(prompt):,} tokens, and {settings.max_new_tokens:,} new ones are wanted"
            mistakes.append(
                Mistake(
                    f"prompt {number} does not fit",
                    details=(wanted, f"the model reads at most {context:,}"),
                    fix=f"set `max_new_tokens` to at most {room:,}" if room > 0 else f"take off {1 - room:,} tokens",
                )
            )
    return mistakes
