"""The step form of a deployed model, run for a batch of texts: prompts at once, then a token at a time."""

from collections.abc import Mapping, Sequence

import numpy as np

from atinuke.core.errors import fail
from atinuke.core.names import close
from atinuke.runtime.interface import BATCH, CAPACITY, Array
from atinuke.runtime.runner import Memory, Runner
from atinuke.runtime.sampling import Logits, Tokens

GROWTH = (
    64  # positions: what the cache grows by. Attention reads all of it, so a large cache is slow; growing copies it
)
PREFILL_TOKENS = 8192  # in one step


class Decoder:
    """The programs `prefill` and `decode` (and `prepare`, which reads what is `given`), a batch of rows of different
    lengths, and a cache that grows with them."""

    def __init__(self, runner: Runner, prompts: Sequence[Sequence[int]], given: Mapping[str, Array]) -> None:
        self.runner = runner
        self.prompts = prompts
        self.position = np.array([len(prompt) for prompt in prompts], np.int64)
        self.prepared = runner.run("prepare", given) if "prepare" in runner.programs else {}
        self.text = runner.programs["prefill"].inputs[0]
        low, _ = runner.axes.get(str(self.text.shape[1]), (1, 1))
        self.longest = max(low, *map(len, prompts))
        self.capacity = 0
        self.memory: Memory = {}

    def prefill(self) -> Logits:
        """The logits `[batch, vocab_size]` after the last token of each prompt."""
        padded = np.zeros((len(self.prompts), self.longest), self.text.dtype)
        for row, prompt in zip(padded, self.prompts, strict=True):
            row[: len(prompt)] = prompt
        last = self.position - 1
        found: Logits | None = None
        start = 0
        self._grow()
        pieces = -(-self.longest // max(1, PREFILL_TOKENS // len(padded)))
        for piece in np.array_split(padded, pieces, axis=1):
            here = (last - start).clip(0, piece.shape[1] - 1)
            feeds = {"position": np.full_like(last, start), "last": here}
            logits = self._step("prefill", np.ascontiguousarray(piece), feeds)
            found = logits if found is None else np.where((last >= start)[:, None], logits, found)
            start += piece.shape[1]
        assert found is not None
        self.longest = int(self.position.max())
        return found

    def next(self, tokens: Tokens) -> Logits:
        """The logits `[batch, vocab_size]` after one more token of each row, `tokens[batch]`."""
        self.longest += 1
        if self.longest > self.capacity:
            self._grow()
        logits = self._step("decode", tokens[:, None].astype(self.text.dtype), {"position": self.position})
        self.position = self.position + 1
        return logits

    def _step(self, program: str, text: Array, feeds: Mapping[str, Array]) -> Logits:
        feeds = {self.text.name: text, **feeds, **self.prepared}
        logits: Logits = self.runner.step(program, feeds, self.memory)["logits"][:, -1]
        return logits

    def _grow(self) -> None:
        """A larger cache with the memory of the old one."""
        self.capacity = min(-(-self.longest // GROWTH) * GROWTH, self.runner.axes[CAPACITY][1])
        sizes = {BATCH: len(self.prompts), CAPACITY: self.capacity}
        self.memory = self.runner.grow("decode", self.memory, sizes)


def require_given(runner: Runner, given: Mapping[str, Array], rows: int) -> None:
    """Refuses what is missing, unknown or of another batch among what `prepare` reads."""
    reads = [port.name for port in runner.programs["prepare"].inputs] if "prepare" in runner.programs else []
    for name, array in given.items():
        if name not in reads:
            raise fail(f"the model's text does not depend on `{name}`", fix=close(name, reads))
        if len(array) != rows:
            raise fail(f"`{name}` has {len(array):,} rows for {rows:,} prompts", fix="give one for each prompt")
    for name in reads:
        if name not in given:
            raise fail(f"the model needs `{name}`", f"given: {', '.join(given) or 'nothing'}", fix=f"give it `{name}`")
