"""Batches for causal language modelling: windows out of one long stream of tokens.

The stream is a ring. Its documents stand one after another with an end of text after each (as for GPT-2), so that an
end of text comes before the first token too: every token can be predicted, and a window can begin anywhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atinuke.core.errors import fail

Batch = dict[str, Tensor]
Make = Callable[[Batch, Sequence[int]], Batch]
"""What becomes of a batch whose rows are visited as the `numbers`-th."""
IGNORED = -100


class Stream(Protocol):
    """Tokens of which slices can be read: `shards.Tokens`, or an array."""

    def __len__(self) -> int: ...
    def __getitem__(self, span: slice, /) -> NDArray[Any]: ...


class Sampler:
    """An endless source of batches `{"input_ids", "labels"}`, int64 `[batch, context]`; a label is the next token.

    An epoch cuts the ring, from a random place on, into `len(tokens) // context` windows and visits each once in random
    order: every token is a label once, except for fewer than `context` that are left over, others in each epoch. Place
    and order follow from `seed` and the number of the epoch. A batch takes the next windows, across the end of an epoch
    where need be. Of `world_size` processes, each takes its share of what is then one larger batch. `make` has the last
    word on each.

    Raises:
        AtinukeError: there are fewer tokens than one window.
    """

    def __init__(
        self,
        tokens: Stream,
        context: int,
        batch: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        make: Make | None = None,
    ) -> None:
        if len(tokens) < context:
            raise fail(
                f"{len(tokens):,} training tokens are too few",
                f"one window has {context:,}",
                fix="give more text or a smaller `context`",
            )
        self._tokens, self._make = tokens, make
        self._context, self._batch, self._seed = context, batch, seed
        self._rank, self._world_size = rank, world_size
        self._windows = len(tokens) // context
        self._position = 0  # windows taken by all processes since the beginning
        self._epoch, self._place, self._order = -1, 0, np.empty(0, np.int64)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        first = self._position + self._rank * self._batch
        self._position += self._world_size * self._batch
        numbers = range(first, first + self._batch)
        rows = [_ring(self._tokens, self._start(number), self._context + 1) for number in numbers]
        tokens = torch.from_numpy(np.stack(rows))
        batch = {"input_ids": tokens[:, :-1].contiguous(), "labels": tokens[:, 1:].contiguous()}
        return self._make(batch, numbers) if self._make else batch

    @property
    def epoch(self) -> float:
        """How often all windows have been visited, 0.5 being half way through the first time."""
        return self._position / self._windows

    def state_dict(self) -> dict[str, int]:
        """The position, and what it is a position in."""
        return {"position": self._position, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on exactly where the state was taken; `batch` and `world_size` may differ.

        Raises:
            AtinukeError: the state is of other tokens, another context or another seed.
        """
        self._position = position_of(state, self._identity(), "data, context and seed")

    def _identity(self) -> dict[str, int]:
        return {"tokens": len(self._tokens), "context": self._context, "seed": self._seed}

    def _start(self, number: int) -> int:
        """Where the window begins that is the `number`-th since the beginning."""
        epoch, visit = divmod(number, self._windows)
        if epoch != self._epoch:
            random = np.random.default_rng([self._seed, epoch])
            self._place = int(random.integers(len(self._tokens)))
            self._order = random.permutation(self._windows)
            self._epoch = epoch
        return (self._place + self._context * int(self._order[visit])) % len(self._tokens)


def position_of(state: Mapping[str, int], identity: Mapping[str, int], what: str) -> int:
    """The position in a sampler's state; raises AtinukeError where it is one in other data than `identity` says."""
    theirs = {name: state.get(name) for name in identity}
    position = state.get("position", -1)
    if theirs != identity or position < 0:
        raise fail(
            "the position is not one in this data",
            f"it is of {theirs}",
            f"this is {identity}",
            fix=f"resume with the {what} the run began with",
        )
    return position


def in_order(tokens: Stream, context: int, batch: int, make: Make | None = None) -> Iterator[Batch]:
    """Every token as a label once, from first to last: batches as a `Sampler` gives them, always the same.

    The rest of the last batch is padding: labels -100, tokens 0.
    """
    for first in range(0, len(tokens), batch * context):
        inputs, labels = np.zeros(batch * context, np.int64), np.full(batch * context, IGNORED, np.int64)
        span = _ring(tokens, (first - 1) % len(tokens), min(batch * context, len(tokens) - first) + 1)
        inputs[: len(span) - 1], labels[: len(span) - 1] = span[:-1], span[1:]
        made = {
            "input_ids": torch.from_numpy(inputs.reshape(batch, context)),
            "labels": torch.from_numpy(labels.reshape(batch, context)),
        }
        yield make(made, range(first // context, first // context + batch)) if make else made


def _ring(tokens: Stream, start: int, length: int) -> NDArray[np.int64]:
    """`length` tokens, at most one more than there are, from `start` on and round."""
    beyond = max(0, start + length - len(tokens))
    return np.concatenate([tokens[start : start + length], tokens[:beyond]]).astype(np.int64)
