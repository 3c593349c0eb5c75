"""The learning rate as a function of the step: nothing to store, so nothing to restore."""

import math

from atinuke.pipelines.recipe import WSD, Cosine


def rate(schedule: Cosine | WSD, step: int, steps: int) -> float:
    """The share of the peak learning rate that step `step` (1 to `steps`) uses; 1 right after the warm-up.

    The last step uses `schedule.final` exactly; the first of a warm-up of w steps uses 1 / (w + 1).
    """
    if step <= schedule.warmup:
        return step / (schedule.warmup + 1)
    if isinstance(schedule, Cosine):
        start = schedule.warmup + 1
        return _between(0.5 * (1 + math.cos(math.pi * _progress(step, start, steps))), schedule.final)
    start = max(schedule.warmup + 1, steps - round(schedule.decay * steps))
    return _between(1 - _progress(step, start, steps), schedule.final)


def _progress(step: int, start: int, end: int) -> float:
    """0 up to `start`, 1 at `end`."""
    return max(0, step - start) / (end - start) if end > start else float(step > start)


def _between(share: float, final: float) -> float:
    return final + (1 - final) * share
