"""What a quantised build gains and costs beside the model: its size, its speed, and the figure that the run is judged
by."""

from collections.abc import Iterator
from dataclasses import dataclass

from atinuke.runtime.strict import Value

QUANTISED = ("int8", "int8-weights", "int4-weights", "fp8")
PERCENT = ("accuracy", "error rate", "recall at 1")
"""Figures that are shares."""
HEAD = ("build", "size", "a call", "speed")


@dataclass(frozen=True)
class Measured:
    """One way to run the model: the `size` of its files in bytes, the median `milliseconds` of a call, how many times
    `faster` it is than the model that was called in turn with it, and its figure with the 95 % interval that it has."""

    size: int
    milliseconds: float
    faster: float
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Quality:
    """What was measured alike of all builds and of the float32 `model`: the `call`, in so many `threads`, and the
    `metric`. `said` tells on which rows; where there is no metric, why."""

    call: str
    threads: int
    metric: str | None
    said: str
    model: Measured


def shown(metric: str | None, one: Measured) -> str:
    """The figure with its interval."""
    if one.value is None:
        return "-"
    if metric not in PERCENT:
        return f"{one.value:.4g}"
    interval = "" if one.low is None or one.high is None else f" ({one.low:.1%} to {one.high:.1%})"
    return f"{one.value:.1%}{interval}"


def table(quality: Quality, builds: dict[str, Measured | None]) -> Iterator[tuple[str, ...]]:
    """The head and the rows of a table: the model first, then each build."""
    yield (*HEAD, *((quality.metric,) if quality.metric else ()))
    for name, one in {"model, float32": quality.model, **builds}.items():
        if one is None:
            yield (name, *["-"] * (len(HEAD) - 1 + bool(quality.metric)))
            continue
        told = f"{one.size / (1 << 20):,.2f} MiB", f"{one.milliseconds:.3g} ms", f"{one.faster:.2f} x"
        yield (name, *told, *((shown(quality.metric, one),) if quality.metric else ()))


def explain(quality: Quality) -> str:
    """What the figures of the table are."""
    threads = "one thread" if quality.threads == 1 else f"{quality.threads} threads"
    calls = f"A call is {quality.call}, in {threads}, with the model (eager PyTorch) and the build in turn"
    return f"{calls}. Figure: {quality.said}."


def read_quality(value: Value) -> Quality:
    """Raises AtinukeError where it is something else."""
    told = value.record("call", "threads", "metric", "said", "model")
    words = told["call"].text(), told["threads"].whole(), told["metric"].maybe(Value.text), told["said"].text()
    return Quality(*words, read_measured(told["model"]))


def read_measured(value: Value) -> Measured:
    """Raises AtinukeError where it is something else."""
    told = value.record("size", "milliseconds", "faster", "value", "low", "high")
    speed = told["milliseconds"].positive(), told["faster"].positive()
    figure = (told[name].maybe(Value.number) for name in ("value", "low", "high"))
    return Measured(told["size"].whole(0), *speed, *figure)
