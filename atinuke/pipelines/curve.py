"""The loss curve as a picture, drawn from `log.jsonl` alone."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from atinuke.core.errors import fail
from atinuke.core.files import replacing
from atinuke.pipelines import log

PALE, STRONG, ACCENT, QUIET = "#9ecae1", "#2171b5", "#d94801", "#636363"


def draw(records: Path, picture: Path) -> None:
    """Draws the training loss (raw and smoothed), the validation loss and the learning rate into a PNG.

    Raises:
        AtinukeError: the log cannot be read, holds no losses, or the picture cannot be written.
    """
    from matplotlib.figure import Figure

    rows = log.read(records)
    trained = [(row["step"], row["loss"], row["lr"]) for row in rows if row.get("loss") is not None]
    checked = [(row["step"], row["validation_loss"]) for row in rows if row.get("validation_loss") is not None]
    if not trained:
        raise fail("holds no losses to draw", where=str(records), fix="train for at least one step")
    steps, losses, rates = zip(*trained, strict=True)

    figure = Figure(figsize=(9, 5.5), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    above.plot(steps, losses, color=PALE, linewidth=0.8, label="training, each step")
    above.plot(steps, smooth(losses), color=STRONG, linewidth=2, label="training, smoothed")
    if checked:
        above.plot(*zip(*checked, strict=True), "o-", color=ACCENT, linewidth=1.2, markersize=5, label="validation")
        step, lowest = min(checked, key=lambda point: point[1])
        above.annotate(f"{lowest:.3f}", (step, lowest), (0, 9), textcoords="offset points", color=ACCENT, ha="center")
    bad = [row["step"] for row in rows if "bad" in row]
    if bad:
        above.plot(bad, [min(losses)] * len(bad), "x", color=QUIET, label=f"{len(bad)} bad steps, not applied")
    tokens = any("tokens_per_second" in row for row in rows)
    above.set_ylabel("loss (nats a token)" if tokens else "loss")
    above.legend(frameon=False)
    below.plot(steps, rates, color=QUIET, linewidth=1.5)
    below.set_ylim(bottom=0)
    below.set_ylabel("learning rate")
    below.set_xlabel("step")
    below.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for panel in (above, below):
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)

    with replacing(picture) as draft:
        figure.savefig(draft, format="png")


def smooth(values: Sequence[float]) -> list[float]:
    """The mean of the steps around each step, about a fortieth of the run; fewer at the ends, so that it never lags."""
    reach = len(values) // 80
    sums = list(accumulate(values, initial=0.0))
    spans = [min(reach, index, len(values) - 1 - index) for index in range(len(values))]
    return [(sums[i + span + 1] - sums[i - span]) / (2 * span + 1) for i, span in enumerate(spans)]
