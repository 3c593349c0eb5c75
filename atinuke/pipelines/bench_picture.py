"""A bench as a picture: for each task a bar for each way, and beside them load time and memory."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atinuke.core.errors import fail
from atinuke.core.files import replacing
from atinuke.pipelines.curve import ACCENT, PALE, QUIET, STRONG
from atinuke.runtime.bench import Figure, Report

ROW = 0.4  # inches for a bar
WIDE = 150  # letters of a line below
REACH = 2.5  # of the longest median: whiskers end there, or one late call would leave no room for the bars
HEAD = 0.95  # inches around the bars of a task


def draw(report: Report, picture: Path) -> None:
    """Draws the report as a PNG.

    Raises:
        AtinukeError: nothing was measured, matplotlib is not installed, or the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise fail("drawing needs matplotlib", fix="pip install matplotlib") from None
    if not report.figures:
        raise fail("nothing was measured, so there is nothing to draw", *(f"{w.name}: {w.why}" for w in report.ways))
    tasks = list(dict.fromkeys(figure.task for figure in report.figures))
    loaded = [way for way in report.ways if way.load is not None]
    rows = len({figure.way for figure in report.figures})
    height = 0.9 + len(tasks) * (HEAD + ROW * rows) + (HEAD + ROW * len(loaded) if loaded else 0)
    canvas = Canvas(figsize=(10, height), dpi=130, layout="constrained")
    sizes = ", ".join(f"{name} {size:,}" for name, size in report.sizes.items())
    limits = report.limits
    canvas.suptitle(f"{report.subject} at {sizes}", fontsize=12)
    machine = f"{limits.gemm / 1e9:,.0f} GFLOP/s in float32 products, {limits.memory / 1e9:.1f} GB/s from memory"
    lines = [f"{way.name} cannot run here: {way.why}" for way in report.ways if way.why]
    missing = "".join(f"\n{textwrap.shorten(line, WIDE, placeholder=' …')}" for line in lines)
    foot = f"{report.rounds} rounds; limits of {limits.threads} thread(s), measured in the same run: {machine}{missing}"
    canvas.supxlabel(foot, fontsize=8, color=QUIET)
    grid = canvas.add_gridspec(
        len(tasks) + bool(loaded),
        2,
        height_ratios=[HEAD + ROW * rows] * len(tasks) + [HEAD + ROW * len(loaded)] * bool(loaded),
    )
    for at, task in enumerate(tasks):
        _task(canvas.add_subplot(grid[at, :]), [figure for figure in report.figures if figure.task == task])
    told = "bar: median; whisker: to p95 and p99; orange: what the machine could do"
    canvas.axes[0].set_title(told, fontsize=8, loc="right", color=QUIET)
    if loaded:
        names = [way.name for way in loaded]
        seconds = [way.load or 0 for way in loaded]
        _bars(canvas.add_subplot(grid[-1, 0]), names, seconds, [f"{one:.2f} s" for one in seconds], "load (s)")
        megabytes = [(way.memory or 0) / 2**20 for way in loaded]
        labels = [f"{one:,.0f} MiB" if one else "not told" for one in megabytes]
        _bars(canvas.add_subplot(grid[-1, 1]), names, megabytes, labels, "peak memory of a process (MiB)")
    with replacing(picture) as draft:
        canvas.savefig(draft, format="png")


def _task(panel: Any, figures: Sequence[Figure]) -> None:
    """Bars to the median with whiskers to the 99th percentile; a tick where the machine's limit is."""
    labels = [
        f"{f.p50:,.2f} ms, p99 {f.p99:,.2f}\n{f.rate:,.0f} {f.unit}/s, {f.ratio:.2f} × {figures[0].way}"
        for f in figures
    ]
    _bars(panel, [f.way for f in figures], [f.p50 for f in figures], [""] * len(figures), "ms")
    for row, f in enumerate(figures):
        panel.plot([f.p50, f.p99], [row, row], color=QUIET, linewidth=1, zorder=3)
        panel.plot([f.p95, f.p99], [row, row], "|", color=QUIET, markersize=7, zorder=3)
        if f.limit is not None:
            panel.plot([f.limit * f.p50] * 2, [row - 0.31, row + 0.31], color=ACCENT, linewidth=2, zorder=4)
    for row, label in enumerate(labels):
        panel.text(1.01, row, label, va="center", fontsize=8, transform=panel.get_yaxis_transform())
    longest = max(f.p50 for f in figures)
    panel.set_xlim(0, 1.03 * min(max(f.p99 for f in figures), REACH * longest))
    panel.set_title(figures[0].task, loc="left", fontsize=10, fontweight="bold")


def _bars(panel: Any, names: Sequence[str], values: Sequence[float], labels: Sequence[str], axis: str) -> None:
    bars = panel.barh(range(len(values)), values, height=0.62, color=[PALE, *[STRONG] * (len(values) - 1)])
    panel.bar_label(bars, labels, padding=4, fontsize=9)
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_xlim(0, 1.25 * (max(values) or 1))
    panel.set_xlabel(axis, fontsize=9)
    panel.grid(axis="x", alpha=0.25)
    panel.set_axisbelow(True)
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right", "left"]].set_visible(False)
