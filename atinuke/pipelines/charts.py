"""The pictures of an evaluation: who is taken for whom, and bars with their intervals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atinuke.core.files import replacing
from atinuke.pipelines.curve import QUIET, STRONG
from atinuke.pipelines.scores.classes import ClassFigures
from atinuke.pipelines.scores.share import Share

WRITTEN = 30  # more classes than that leave no room for numbers


def confusion(figures: ClassFigures, picture: Path) -> None:
    """Draws the confusion matrix as a PNG: each row in shares of its class, with the counts written into the cells.

    Raises:
        AtinukeError: the picture cannot be written.
    """
    from matplotlib.figure import Figure

    counts = np.array(figures.confusion)
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    names = [one.name if len(one.name) <= 16 else f"{one.name[:15]}…" for one in figures.classes]
    side = float(np.clip(2.6 + 0.42 * len(names), 4.4, 16))
    figure = Figure(figsize=(side + 0.9, side), dpi=130, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= WRITTEN:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    small = float(np.clip(40 * side / len(names), 3, 9))
    upright = max(map(len, names)) > 3
    axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0, fontsize=small)
    axes.set_yticks(range(len(names)), names, fontsize=small)
    axes.set_xlabel("said by the model")
    axes.set_ylabel("right")
    accuracy = figures.accuracy
    axes.set_title(f"accuracy {accuracy.value:.1%} of {accuracy.n:,}", fontsize=11)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=lambda value, _: f"{value:.0%}")
    bar.set_label("of the rows of a class")
    bar.outline.set_visible(False)
    with replacing(picture) as draft:
        figure.savefig(draft, format="png")


def bars(shares: Sequence[tuple[str, Share]], label: str, picture: Path) -> None:
    """Draws a horizontal bar for each share that is one, with its interval, as a PNG.

    Raises:
        AtinukeError: the picture cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.3 + 0.42 * len(shares)), dpi=130, layout="constrained")
    axes = figure.subplots()
    for row, (_, share) in enumerate(shares):
        if share.n:
            reach = [[share.value - share.low], [share.high - share.value]]
            axes.barh(row, share.value, color=STRONG, height=0.62, xerr=reach, ecolor=QUIET, capsize=3)
        told = f"{share.value:.1%}  n = {share.n:,}" if share.n else "no rows"
        axes.text(1.02, row, told, va="center", transform=axes.get_yaxis_transform(), fontsize=9)
    axes.set_yticks(range(len(shares)), [name for name, _ in shares])
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"{label}, with its 95 % interval")
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    with replacing(picture) as draft:
        figure.savefig(draft, format="png")
