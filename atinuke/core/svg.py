"""A checked graph as a picture: one SVG file that needs nothing else, in light or dark as the reader's screen is."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.layout import Layout, Link, Place, arrange
from atinuke.core.show import Box, Drawing, Edge, draw

MAX_BOXES = 1_000
MAX_TEXT = 44
NAME, TEXT, LABEL = 13.0, 12.0, 11.0  # font sizes
ADVANCE = 0.61  # width of a character of a fixed-width font, for a size of 1
PAD = 12.0
ROW = 20.0  # between layers: where wires bend
STEM = 18.0  # below a box: what its wires carry
ARRIVE = 14.0  # between wires that arrive at one box
HEAD = 30.0  # above the boxes of a block: its name
CARDS = 4.0  # how far the cards of a repeated block stand out

STYLE = """
text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; font-size: 12px; fill: #1f2328 }
.page { fill: #ffffff } .block { fill: #f6f8fa; stroke: #afb8c1 } .box { fill: #ffffff; stroke: #818b98 }
.pill { fill: #eaeef2; stroke: #818b98 } .name { font-size: 13px; font-weight: 600 } .soft { fill: #59636e }
.label { font-size: 11px; fill: #59636e } .wire { fill: none; stroke: #6e7781; stroke-width: 1.3 } .head { fill: #6e7781 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .page { fill: #0d1117 } .block { fill: #151b23; stroke: #484f58 } .box { fill: #21262d; stroke: #7d8590 }
.pill { fill: #2d333b; stroke: #7d8590 } .soft, .label { fill: #9198a1 } .wire { stroke: #8b949e } .head { fill: #8b949e }
}
""".strip()


def svg(checked: CheckedGraph) -> str:
    """The picture of a graph as SVG text. Blocks are drawn once; what a wire carries stands below the box that it leaves.

    Raises:
        AtinukeError: the graph has too many boxes to be looked at.
    """
    drawing = draw(checked.body)
    count = _count(drawing)
    if count > MAX_BOXES:
        raise fail(f"graph `{checked.graph.name}` has {count:,} boxes, too many for a picture", fix="show it as a table")
    picture = _Picture(drawing)
    scene = _Scene()
    top = PAD + 2 * NAME
    picture.paint(scene, PAD, top)
    title = _short(checked.graph.name)
    total = f"{sum(box.parameters for box in drawing.boxes.values()):,} parameters"
    width = max(picture.width, _width(title, NAME) + PAD + _width(total, LABEL)) + 2 * PAD
    height = picture.height + top + PAD
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{STYLE}\n</style>",
            f'<rect class="page" width="{width:.0f}" height="{height:.0f}"/>',
            _text(PAD, PAD + NAME, "name", title),
            _text(PAD * 2 + _width(title, NAME), PAD + NAME, "label", total),
            *scene.blocks,
            *scene.wires,
            *scene.boxes,
            "</svg>\n",
        ]
    )


def _count(drawing: Drawing) -> int:
    return sum(1 + (_count(box.inner) if box.inner else 0) for box in drawing.boxes.values())


@dataclass
class _Scene:
    """What is drawn, from the back to the front."""

    blocks: list[str] = field(default_factory=list)
    wires: list[str] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)


class _Picture:
    """A body with everything at its place; blocks hold pictures of their own."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.inner = {key: _Picture(box.inner) for key, box in drawing.boxes.items() if box.inner}
        self.stems = {key: self.stems_of(key) for key in drawing.boxes}
        self.places = {key: self.place(key, box) for key, box in drawing.boxes.items()}
        self.links = [
            Link(edge.source, edge.target, self.leaves(edge), self.arrives(edge)) for edge in drawing.edges
        ]
        self.layout: Layout = arrange(self.places, self.links)
        self.tops: list[float] = []
        self.heights = [max((place.height for place in layer), default=0.0) for layer in self.layout.layers]
        y = 0.0
        for height in self.heights:
            self.tops.append(y)
            y += height + ROW
        self.height = y - ROW
        self.width = max(place.x + place.right for layer in self.layout.layers for place in layer)

    # Sizes

    def stems_of(self, key: str) -> dict[str, tuple[float, str]]:
        """For each output of a box that feeds something: how far right of its axis it leaves, and what it carries."""
        stems: dict[str, tuple[float, str]] = {}
        right = 0.0
        for edge in (edge for edge in self.drawing.edges if edge.source == key):
            if edge.output in stems:
                continue
            at = self.exit(key, edge.output) if key in self.inner else right
            stems[edge.output] = (max(at, right), edge.label)
            right = max(at, right) + _width(edge.label, LABEL) + 2 * PAD
        return stems

    def exit(self, key: str, output: str) -> float:
        """How far right of its axis an output leaves a block."""
        inner = self.inner[key]
        return inner.places[f"→{output}"].x - inner.axis

    @property
    def axis(self) -> float:
        """The x that a block is hung up by: that of its first input."""
        return next(iter(self.places.values())).x

    def place(self, key: str, box: Box) -> Place:
        stems = self.stems[key].values()
        right = max((at + PAD + _width(label, LABEL) for at, label in stems), default=0.0)
        below = STEM if stems else 0.0
        if key in self.inner:
            inner = self.inner[key]
            left = inner.axis + PAD
            width = max(inner.width - inner.axis + PAD, _heading(box) - left + PAD) + 2 * CARDS
            return Place(left, max(width, right), HEAD + inner.height + PAD + 2 * CARDS + below)
        if box.kind == "output" and not box.name:
            return Place(0.0, 0.0, pin="bottom")
        half = _box_width(box) / 2
        pin: dict[str, str] = {"input": "top", "output": "bottom"}
        return Place(half, max(half, right), _box_height(box) + below, pin.get(box.kind))  # type: ignore[arg-type]
