"""The texts of a batch while they are written: what ends them, and which part of them is certain."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from atinuke.core.errors import Mistake, fail
from atinuke.runtime.sampling import INVALID, Settings
from atinuke.runtime.tokenizer import Tokenizer

Reason = Literal["end_of_text", "stop", "length", "unfinished"]
OnText = Callable[[int, str], None]


@dataclass(frozen=True)
class Continuation:
    """What came after a prompt. `text` ends before the stop string that ended it, `tokens` before the end of text.

    A text that should match something and had no more tokens to do so is `unfinished`. One that was searched for has
    its `score`, and the next best of its search as `others`.
    """

    text: str
    tokens: tuple[int, ...]
    reason: Reason
    score: float | None = None
    others: "tuple[Continuation, ...]" = ()


class Steps(Protocol):
    """A model in the middle of a batch of texts; arrays are those of whatever runs it."""

    def prefill(self) -> Any:
        """The logits `[batch, vocab_size]` after the last token of each prompt."""

    def next(self, tokens: Any) -> Any:
        """The logits `[batch, vocab_size]` after one more token of each row, `tokens[batch]`."""


def write(steps: Steps, sampler: Callable[[Any, int], Any], rows: "Sequence[Row]", most: int) -> Iterator[None]:
    """Steps the whole batch until every row is finished, by at most so many tokens, and halts after each; what a
    finished row still draws is ignored."""
    tokens = sampler(steps.prefill(), 0)
    for step in range(1, most + 1):
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.add(token)
        yield
        if step == most or all(row.reason for row in rows):
            break
        tokens = sampler(steps.next(tokens), step)
    for row in rows:
        row.finish("length")
    yield


class Row:
    """The text of one row while it is written; `reason` says why it is finished."""

    def __init__(
        self, number: int, prompt: Sequence[int], tokenizer: Tokenizer, stops: Sequence[str], on_text: OnText | None
    ) -> None:
        self.number = number
        self.ends = tokenizer.ends
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
        if token in self.ends:
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


def misfits(prompts: Sequence[Sequence[int]], settings: Settings, context: int) -> list[Mistake]:
    """The prompts that cannot be gone on from within the context."""
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
