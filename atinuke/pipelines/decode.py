"""The incremental form at work: prompts are read in pieces, then every row goes on by a token at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from atinuke.runtime.generate import GROWTH, PREFILL_TOKENS

Step = Callable[..., Any]


class Decoder:
    """A model with `state` and `step`, a batch of rows of different lengths, and a cache that grows with them.

    `step` is `model.step` or a compiled form of it; `given` is what the model's `prepare` reads, if it has one. Use it
    under `torch.inference_mode()`.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        step: Step | None = None,
        given: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model: Any = model
        self.step: Any = self.model.step if step is None else step
        self.device = next(model.parameters()).device
        self.prompts = prompts
        self.position = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        self.longest = max(map(len, prompts))
        self.capacity = 0
        self.state: tuple[Tensor, ...] = ()
        self.prepared: tuple[Any, ...] = ()  # none, or one: a tuple of tensors
        prepare = getattr(model, "prepare", None)
        if prepare is not None:
            known = {name: tensor.to(self.device) for name, tensor in (given or {}).items()}
            self.prepared = (prepare(**known),)

    def prefill(self) -> Tensor:
        """The logits `[batch, vocab_size]` after the last token of each prompt."""
        rows = [torch.tensor(prompt, device=self.device) for prompt in self.prompts]
        padded = pad_sequence(rows, batch_first=True)
        last = self.position - 1
        found: list[Tensor] = []
        start = 0
        self._grow()
        for piece in torch.split(padded, max(1, PREFILL_TOKENS // len(rows)), dim=1):
            here = (last - start).clamp(0, piece.shape[1] - 1)
            begin = torch.full_like(last, start)
            output, self.state = self.model.step(piece, begin, self.state, *self.prepared, last=here)
            logits = output.logits[:, 0]
            found = [torch.where((last >= start)[:, None], logits, found[0]) if found else logits]
            start += piece.shape[1]
        return found[0]

    def next(self, tokens: Tensor) -> Tensor:
        """The logits `[batch, vocab_size]` after one more token of each row, `tokens[batch]`."""
        self.longest += 1
        if self.longest > self.capacity:
            self._grow()
        output, self.state = self.step(tokens[:, None], self.position, self.state, *self.prepared)
        self.position = self.position + 1
        logits: Tensor = output.logits[:, -1]
        return logits

    def reorder(self, rows: Tensor) -> None:
        """Goes on with the rows `rows[batch]` in place of all rows; each must have the same prompt and the same given
        as the row whose place it takes."""
        ones, twos = self.model.state(1, 1), self.model.state(2, 1)
        axes = [
            next(axis for axis, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if a != b)
            for one, two in zip(ones, twos, strict=True)
        ]
        self.state = tuple(old.index_select(axis, rows) for old, axis in zip(self.state, axes, strict=True))

    def _grow(self) -> None:
        """A larger cache with the memory of the old one: what depends on the capacity is filled from the front."""
        self.capacity = -(-self.longest // GROWTH) * GROWTH
        larger = self.model.state(len(self.prompts), self.capacity)
        for old, new in zip(self.state, larger, strict=False):
            new[tuple(map(slice, old.shape))] = old
        self.state = larger
