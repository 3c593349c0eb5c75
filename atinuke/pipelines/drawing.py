"""A view of a node as a picture: on the left what went in, on the right what came out."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atinuke.core.errors import fail
from atinuke.core.files import replacing
from atinuke.pipelines.curve import ACCENT, QUIET, STRONG
from atinuke.pipelines.fields import Array, Audio, Image
from atinuke.pipelines.look import Sense, View

SPECTROGRAMS = ("audio.logmel", "audio.fbank")
HOP = 0.01  # seconds between the frames of both
NAMED = 40  # more classes than that leave no room for their names


def draw(view: View, picture: Path) -> None:
    """Draws the senses that a node depends on, and its value, as a PNG.

    Raises:
        AtinukeError: the value has more axes than can be drawn, or the picture cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, max(4.4, 2.4 * len(view.senses))), dpi=120, layout="constrained")
    figure.suptitle(f"{view.node} ({view.use}), {view.weights}, {view.place}", fontsize=12)
    right: Any = figure
    if view.senses:
        halves: Any = figure.subfigures(1, 2, width_ratios=(2, 3), wspace=0.04)
        left, right = halves
        cells = view.value.shape[:2] if _is_grid(view) else None
        for panel, sense in zip(left.subplots(len(view.senses), 1, squeeze=False)[:, 0], view.senses, strict=True):
            _sense(panel, sense, cells)
    panel = right.subplots()
    match view.value.ndim:
        case 0:
            _blank(panel, f"{view.value.item():.4g}", 28)
        case 1:
            _line(panel, view)
        case 2:
            _map(right, panel, view)
        case 3 if _is_picture(view):
            _picture(panel, view.value)
        case 3:
            _grid(panel, view)
        case count:
            what = f"`{view.node}` gives {count} axes for each row: {', '.join(view.axes)}"
            raise fail(what, fix="look at a node that gives at most 3")
    with replacing(picture) as draft:
        figure.savefig(draft, format="png")


def _sense(panel: Any, sense: Sense, cells: tuple[int, ...] | None) -> None:
    """The raw input; a picture with the lines of the grid of cells that the node gives."""
    panel.set_title(sense.name, fontsize=10)
    if sense.value is None:
        _blank(panel, "missing", 14)
    elif isinstance(sense.field, Audio):
        seconds = np.arange(len(sense.value)) / sense.field.rate
        panel.plot(seconds, sense.value, color=STRONG, linewidth=0.6)
        panel.set_xlim(0, len(sense.value) / sense.field.rate)
        panel.set_xlabel("time (s)")
        panel.set_ylabel("amplitude (full scale 1)")
        _light(panel)
    elif isinstance(sense.field, Image):
        _picture(panel, sense.value)
        if cells:
            _, height, width = sense.value.shape
            for at in np.linspace(0, height, cells[0] + 1):
                panel.axhline(at - 0.5, color=ACCENT, linewidth=0.8)
            for at in np.linspace(0, width, cells[1] + 1):
                panel.axvline(at - 0.5, color=ACCENT, linewidth=0.8)
            panel.set_xlabel(f"{cells[0]} × {cells[1]} cells")
    elif sense.text is not None:
        panel.set_title(f"{sense.name} ({len(sense.value)} tokens)", fontsize=10)
        _blank(panel, textwrap.fill(textwrap.shorten(sense.text, 400, placeholder=" …"), 36), 11)
    else:
        _blank(panel, str(sense.value), 14)


def _blank(panel: Any, text: str, size: int) -> None:
    """A panel of text alone."""
    panel.set_axis_off()
    panel.text(0.5, 0.5, text, ha="center", va="center", fontsize=size, transform=panel.transAxes)


def _light(panel: Any) -> None:
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _label(view: View, axis: int) -> str:
    name, size = view.axes[axis], view.value.shape[axis]
    return name if name == str(size) else f"{name} ({size})"


def _line(panel: Any, view: View) -> None:
    """Classes as bars of probability; any other vector as a bar for each place."""
    if view.classes and len(view.classes) == len(view.value):
        shares = _softmax(view.value)
        colours = [ACCENT if name == view.right else STRONG for name in view.classes]
        bars = panel.barh(range(len(shares)), shares, color=colours)
        if len(shares) <= NAMED:
            panel.bar_label(bars, [f"{share:.1%}" for share in shares], padding=3, fontsize=8, color=QUIET)
            panel.set_yticks(range(len(shares)), view.classes)
        panel.invert_yaxis()
        panel.set_xlim(0, 1.12)
        panel.set_xticks(np.linspace(0, 1, 6))
        panel.set_xlabel("probability")
        panel.set_title(
            f"right: {view.right}" if view.right else "the right class is missing", color=ACCENT, fontsize=10
        )
        _light(panel)
        return
    panel.bar(range(len(view.value)), view.value.astype(np.float64), width=1.0, color=STRONG)
    panel.set_xlim(-0.5, len(view.value) - 0.5)
    panel.set_xlabel(_label(view, 0))
    panel.set_ylabel("value")
    _light(panel)


def _map(figure: Any, panel: Any, view: View) -> None:
    """The first axis runs to the right, the second upwards; places that do not count are pale."""
    values = view.value.astype(np.float64).T
    spectrogram = view.use in SPECTROGRAMS
    step = HOP if spectrogram else 1.0
    edges = (-0.5 * step, (values.shape[1] - 0.5) * step, -0.5, values.shape[0] - 0.5)
    if spectrogram:
        colours: dict[str, Any] = {"cmap": "magma"}
    else:  # a few large values would leave all others pale
        counts = slice(None) if view.mask is None or not view.mask.any() else view.mask
        reach = float(np.percentile(np.abs(values[:, counts]), 99)) or 1.0
        colours = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
    image = panel.imshow(values, origin="lower", aspect="auto", interpolation="nearest", extent=edges, **colours)
    bar = figure.colorbar(image, ax=panel, extend="neither" if spectrogram else "both", fraction=0.05)
    bar.set_label("log-mel power" if spectrogram else "value")
    bar.outline.set_visible(False)
    panel.set_xlabel("time (s)" if spectrogram else _label(view, 0))
    panel.set_ylabel(f"mel band ({values.shape[0]})" if spectrogram else _label(view, 1))
    if view.classes and len(view.classes) <= values.shape[0] <= NAMED:
        blank = ["blank"] * (values.shape[0] - len(view.classes))
        panel.set_yticks(range(values.shape[0]), [*view.classes, *blank])
    if view.mask is not None and not view.mask.all():
        for place in np.flatnonzero(~view.mask):
            panel.axvspan((place - 0.5) * step, (place + 0.5) * step, color="white", alpha=0.75, linewidth=0)
        panel.set_title("pale: padding, which does not count", fontsize=10, color=QUIET)


def _is_picture(view: View) -> bool:
    return view.value.ndim == 3 and view.axes[0] == "channels" and len(view.value) in (1, 3)


def _is_grid(view: View) -> bool:
    return view.value.ndim == 3 and not _is_picture(view)


def _picture(panel: Any, value: Array) -> None:
    """`[channels, height, width]`; what is no byte is stretched to the range from its smallest to its largest value."""
    if value.dtype != np.uint8:
        low, high = float(value.min()), float(value.max())
        panel.set_title(f"black {low:.2f}, white {high:.2f}", fontsize=10)
        value = (value - low) / ((high - low) or 1.0)
    pixels = value.transpose(1, 2, 0)
    grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255 if value.dtype == np.uint8 else 1}
    panel.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, interpolation="nearest", **grey)
    panel.set_xticks([0, pixels.shape[1] - 1])
    panel.set_yticks([0, pixels.shape[0] - 1])


def _grid(panel: Any, view: View) -> None:
    """The first three principal components of the vectors of a grid as red, green and blue."""
    colours, kept = components(view.value.astype(np.float64))
    panel.imshow(colours, interpolation="nearest")
    panel.set_title(f"first three principal components: {kept:.0%} of the variance", fontsize=10)
    panel.set_xlabel(_label(view, 1))
    panel.set_ylabel(_label(view, 0))
    panel.set_xticks([0, view.value.shape[1] - 1])
    panel.set_yticks([0, view.value.shape[0] - 1])


def components(grid: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Vectors `[rows, columns, width]` as colours 0..1 `[rows, columns, 3]`: the first three principal components, each
    stretched from its 1st to its 99th percentile; and the share of the variance that they hold. A component that is not
    there is grey."""
    rows, columns, width = grid.shape
    vectors = grid.reshape(-1, width)
    vectors = vectors - vectors.mean(0)
    left, sizes, _ = np.linalg.svd(vectors, full_matrices=False)
    total = float((sizes**2).sum())
    colours = np.full((rows * columns, 3), 0.5)
    for i in range(min(3, len(sizes))):
        if sizes[i] > 1e-6 * sizes[0]:
            low, high = np.percentile(left[:, i], (1, 99))
            colours[:, i] = np.clip((left[:, i] - low) / ((high - low) or 1.0), 0, 1)
    kept = float((sizes[:3] ** 2).sum()) / total if total else 1.0
    return colours.reshape(rows, columns, 3), kept


def _softmax(scores: Array) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.exp(scores.astype(np.float64) - scores.max())
    shares /= shares.sum()
    return shares
