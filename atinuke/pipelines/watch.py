"""The rule for bad steps: what is refused, when a run gives up. See `BadLoss` in the recipe for the wording."""

import math
import statistics
from collections import deque
from collections.abc import Iterable

from atinuke.pipelines.recipe import BadLoss


class Watch:
    """Remembers the recent good losses. `recent` and `row` are all its state, and part of every checkpoint."""

    def __init__(self, rule: BadLoss, recent: Iterable[float] = (), row: int = 0) -> None:
        self.rule = rule
        self.recent = deque(recent, maxlen=rule.window)
        self.row = row

    def judge(self, loss: float, gradient_norm: float) -> str | None:
        """Why the step is bad, or None; counts it either way."""
        reason = self._reason(loss, gradient_norm)
        if reason is None:
            self.recent.append(loss)
            self.row = 0
        else:
            self.row += 1
        return reason

    @property
    def gives_up(self) -> bool:
        """Whether the run must end after the bad step just judged."""
        return self.rule.do == "stop" or self.row >= self.rule.most

    def _reason(self, loss: float, gradient_norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(gradient_norm):
            return f"the gradient norm is {gradient_norm}"
        if self.rule.spike is None or len(self.recent) < self.rule.window:
            return None
        mean, deviation = statistics.fmean(self.recent), statistics.pstdev(self.recent)
        if loss > mean + self.rule.spike * deviation:
            usual = f"{mean:.4g} ± {deviation:.2g} in the last {self.rule.window} good steps"
            return f"the loss {loss:.4g} is a spike: it was {usual}"
        return None
