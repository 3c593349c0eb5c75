"""Batches of examples of similar length, decoded ahead by threads: endless, shuffled and resumable.

Threads, not processes: libsndfile, soxr, Pillow, numpy and the tokenizers let other threads run while they work, and
nothing has to be copied from one process to another (docs/log.md has the figures).
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from atinuke.pipelines.sampler import Batch, Make, position_of

POOL = 64  # groups that are sorted by length together
AHEAD = 2  # batches decoded ahead by each thread


class Many(Protocol):
    """What batches are made of: `lengths[i]` is how long example i is among the others; `fingerprint` differs where an
    example does."""

    lengths: NDArray[np.float64]
    fingerprint: str

    def __len__(self) -> int: ...
    def batch(self, indices: Sequence[int]) -> Batch: ...


class Shuffled:
    """An endless source of batches: each epoch has every example once, in another order.

    A step of all processes takes `batch * accumulate * world_size` examples, a group of similar length. For that, an
    epoch is shuffled and cut into pools of 64 groups; each pool is sorted by length and cut into groups; and the groups
    are shuffled. The order follows from `seed`, the number of the epoch and the size of a group alone. Where an epoch
    ends within a step, the next one's first examples complete it. Of the processes, each takes its share of what is
    then one larger batch. `make` has the last word on each.

    `waited` is the number of seconds that were spent waiting for data so far.
    """

    def __init__(
        self,
        examples: Many,
        batch: int,
        accumulate: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 2,
        make: Make | None = None,
    ) -> None:
        self._examples, self._batch, self._seed, self._make = examples, batch, seed, make
        self._rank, self._world_size = rank, world_size
        self._group = batch * accumulate * world_size
        self._position = 0  # examples taken by all processes since the beginning
        self._epoch, self._order = -1, np.empty(0, np.int64)
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._ahead = AHEAD * workers
        self._pending: deque[Future[Batch]] = deque()
        self._planned = 0  # where the batch begins that is to be decoded next
        self.waited = 0.0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        begin = time.perf_counter()
        if self._pool is None:
            batch = self._decode(*self._plan())
        else:
            while len(self._pending) <= self._ahead:
                self._pending.append(self._pool.submit(self._decode, *self._plan()))
            batch = self._pending.popleft().result()
        self._position += self._world_size * self._batch
        self.waited += time.perf_counter() - begin
        return batch

    @property
    def epoch(self) -> float:
        """How often all examples have been visited, 0.5 being half way through the first time."""
        return self._position / len(self._examples)

    def state_dict(self) -> dict[str, int]:
        """The position, and what it is a position in."""
        return {"position": self._position, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on exactly where the state was taken; what was decoded ahead is dropped.

        `batch`, `accumulate` and `world_size` may differ if their product does not.

        Raises:
            AtinukeError: the state is of other examples, another size of group or another seed.
        """
        position = position_of(state, self._identity(), "data, fields, rows of a step and seed")
        while self._pending:
            self._pending.popleft().cancel()
        self._position = self._planned = position

    def _identity(self) -> dict[str, int]:
        data = int(self._examples.fingerprint[:15], 16)
        return {"examples": len(self._examples), "data": data, "group": self._group, "seed": self._seed}

    def _plan(self) -> tuple[list[int], range]:
        """The examples of the next batch that is to be decoded, and the numbers of their visits."""
        first = self._planned + self._rank * self._batch
        self._planned += self._world_size * self._batch
        numbers = range(first, first + self._batch)
        return [self._example(number) for number in numbers], numbers

    def _example(self, number: int) -> int:
        """The example that is visited as the `number`-th since the beginning."""
        epoch, visit = divmod(number, len(self._examples))
        if epoch != self._epoch:
            self._order = order(self._examples.lengths, self._group, self._seed, epoch)
            self._epoch = epoch
        return int(self._order[visit])

    def _decode(self, indices: Sequence[int], numbers: Sequence[int]) -> Batch:
        """Runs in a thread."""
        return _decoded(self._examples, indices, numbers, self._make)


def order(lengths: NDArray[np.float64], group: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of the examples in an epoch; its groups begin where steps do."""
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(lengths))
    begun = min(-epoch * len(lengths) % group, len(lengths))  # examples that complete the last step of the epoch before
    whole = (len(lengths) - begun) // group * group
    pools = np.split(shuffled[begun : begun + whole], range(POOL * group, whole, POOL * group))
    ordered = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    groups = random.permutation(ordered.reshape(-1, group))
    return np.concatenate([shuffled[:begun], groups.ravel(), shuffled[begun + whole :]])


def in_order(examples: Many, batch: int, workers: int = 2, make: Make | None = None) -> Iterator[Batch]:
    """Every example once, from first to last, always the same; the last batch may be smaller."""
    starts = range(0, len(examples), batch)

    def decode(start: int) -> Batch:
        numbers = range(start, min(start + batch, len(examples)))
        return _decoded(examples, numbers, numbers, make)

    if not workers:
        yield from map(decode, starts)
        return
    pending: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for start in starts:
                pending.append(pool.submit(decode, start))
                if len(pending) > AHEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _decoded(examples: Many, indices: Sequence[int], numbers: Sequence[int], make: Make | None) -> Batch:
    batch = examples.batch(indices)
    return make(batch, numbers) if make else batch
