"""A checked graph as a picture: one SVG file that needs nothing else, in light or dark as the reader's screen is."""

import itertools
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Literal

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.layout import LANE, Link, Place, arrange
from atinuke.core.show import Box, Drawing, Edge, draw

MAX_BOXES = 300
MAX_TEXT = 44
NAME, TEXT, LABEL = 13.0, 12.0, 11.0  # font sizes
ADVANCE = 0.62  # width of a character of a fixed-width font, for a size of 1
PAD = 12.0
BEND = 6.0  # radius of a bend
TRACK = 6.0  # between wires that run sideways, one below another
STEM = 18.0  # below a box: what its wires carry
ARRIVE = 14.0  # between wires that arrive at one box
HEAD = 30.0  # above the boxes of a block: its name
CARDS = 4.0  # how far the cards of a repeated block stand out

STYLE = """
text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1f2328 }
text { font-size: 12px } .name { font-size: 13px; font-weight: 600 } .label { font-size: 11px }
.soft, .label { fill: #59636e } .wire { fill: none; stroke: #6e7781; stroke-width: 1.3 } .head { fill: #6e7781 }
.page { fill: #ffffff } .block { fill: #f6f8fa; stroke: #afb8c1 }
.box { fill: #ffffff; stroke: #818b98 } .pill { fill: #eaeef2; stroke: #818b98 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .soft, .label { fill: #9198a1 } .wire { stroke: #8b949e } .head { fill: #8b949e }
.page { fill: #0d1117 } .block { fill: #151b23; stroke: #484f58 }
.box { fill: #21262d; stroke: #7d8590 } .pill { fill: #2d333b; stroke: #7d8590 }
}
""".strip()


def svg(checked: CheckedGraph) -> str:
    """The picture of a graph as SVG text. A block is drawn once; what a wire carries stands where it leaves a box.

    Raises:
        AtinukeError: the graph has too many boxes to be looked at.
    """
    drawing = draw(checked.body)
    count = _count(drawing)
    if count > MAX_BOXES:
        raise fail(f"graph `{checked.graph.name}` has {count:,} boxes: too many to look at", fix="show it as a table")
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
            f"<title>{_escape(title)}</title>",
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
    """A body with everything in its place; blocks hold pictures of their own. `exits` are the labels of its outputs."""

    def __init__(self, drawing: Drawing, exits: Mapping[str, str] | None = None) -> None:
        self.drawing = drawing
        self.labels = {key: _labels(drawing, key) for key in drawing.boxes}
        self.inner = {key: _Picture(box.inner, self.labels[key]) for key, box in drawing.boxes.items() if box.inner}
        self.places = {key: self._place(key, box, exits or {}) for key, box in drawing.boxes.items()}
        self.links = [Link(e.source, e.target, self._leaves(e), self._arrives(e)) for e in drawing.edges]
        self.layout = arrange(self.places, self.links)
        self.heights = [max(place.height for place in layer) for layer in self.layout.layers]
        self.arrivals = self._arrivals()
        self.tracks = self._tracks()
        gaps = [2 * BEND + 8 + TRACK * max(tracks.values(), default=0) for tracks in self.tracks]
        self.tops = [sum(self.heights[:i]) + sum(gaps[:i]) for i in range(len(self.heights))]
        self.height = self.tops[-1] + self.heights[-1]
        self.width = max(place.x + place.right for layer in self.layout.layers for place in layer)

    @property
    def axis(self) -> float:
        """The x by which a block hangs from what feeds it: that of its first input."""
        return next(iter(self.places.values())).x

    def _place(self, key: str, box: Box, exits: Mapping[str, str]) -> Place:
        if box.kind == "output" and box.name in exits:
            return Place(LANE, _width(exits[box.name], LABEL) + PAD, pin="bottom")
        if box.kind == "output" and not box.name:
            return Place(LANE, LANE, pin="bottom")
        stems = self._stems(key)
        right = max((at + PAD + _width(label, LABEL) for at, label in stems.values()), default=0.0)
        below = STEM if stems else 0.0
        if key in self.inner:
            left, width, height = self._frame(key)
            return Place(left, max(width - left + CARDS * 2, right), height + CARDS * 2 + below)
        left, wide, height = self._size(key)
        pin: Literal["top", "bottom"] | None = {"input": "top", "output": "bottom"}.get(box.kind)  # type: ignore[assignment]
        return Place(left, max(wide, right), height + below, pin)

    def _size(self, key: str) -> tuple[float, float, float]:
        """The room that a box takes to the left and to the right of its axis, and its height."""
        width, height = _text_size(self.drawing.boxes[key])
        last = max((at for at, _ in self._stems(key).values()), default=0.0)
        return width / 2, max(width / 2, last + PAD), height

    def _frame(self, key: str) -> tuple[float, float, float]:
        """The frame of a block: how far left of the axis it begins, its width and its height."""
        inner, heading = self.inner[key], _width(_heading(self.drawing.boxes[key]), NAME)
        pills = [inner.places[name].x for name, box in inner.drawing.boxes.items() if box.kind == "input"]
        left = max(PAD, heading + 2 * PAD - min(pills, default=inner.width))  # no wire runs through the heading
        return left + inner.axis, left + max(inner.width, heading) + PAD, HEAD + inner.height + PAD

    def _stems(self, key: str) -> dict[str, tuple[float, str]]:
        """Where each output that feeds something leaves a box, to the right of its axis, and what it carries."""
        stems: dict[str, tuple[float, str]] = {}
        free = 0.0
        for output, label in self.labels[key].items():
            if key in self.inner:
                free = self.inner[key].places[f"→{output}"].x - self.inner[key].axis
            stems[output] = (free, label)
            free += _width(label, LABEL) + 2 * PAD
        return stems

    def _leaves(self, edge: Edge) -> float:
        return self._stems(edge.source)[edge.output][0]

    def _arrives(self, edge: Edge) -> float:
        inner = self.inner.get(edge.target)
        return inner.places[edge.port].x - inner.axis if inner else 0.0

    # Drawing

    def paint(self, scene: _Scene, dx: float, dy: float, bottom: float | None = None) -> None:
        """Draws everything `dx` to the right and `dy` down; what leaves goes on to `bottom`."""
        for key, box in self.drawing.boxes.items():
            place = self.places[key]
            x, y = dx + place.x, dy + self.tops[place.layer]
            if key in self.inner:
                self._paint_block(scene, key, x, y)
            elif box.kind != "output" or bottom is None:
                _paint_box(scene, box, x, y, *self._size(key))
            for at, label in self._stems(key).values():
                below = y + self._solid(key) + (2 * CARDS if box.times else 0.0)
                scene.boxes.append(_text(x + at + 6, below + LABEL + 3, "label", label))
        for i, link in enumerate(self.links):
            source, target = self.places[link.source], self.places[link.target]
            stops = self._stops(i)
            path = f"M{dx + stops[0]:.1f} {dy + self.tops[source.layer] + self._solid(link.source):.1f}"
            for layer, (x, to_x) in enumerate(itertools.pairwise(stops), source.layer):
                level = self.tops[layer] + self.heights[layer] + BEND + TRACK * self.tracks[layer].get((x, to_x), 0)
                path += _over(dx + x, dy + level, dx + to_x)
            tip = dy + self.tops[target.layer] + (HEAD if link.target in self.inner else 0.0)
            if bottom is not None and target.pin == "bottom":
                path += f"V{bottom:.1f}"
            else:
                path += f"V{tip - 4:.1f}"
                scene.wires.append(f'<path class="head" d="M{dx + stops[-1]:.1f} {tip:.1f}l-3.5 -7h7z"/>')
            scene.wires.append(f'<path class="wire" d="{path}"/>')

    def _stops(self, i: int) -> list[float]:
        """The x of a link in every layer from its source to its target."""
        link = self.links[i]
        begin, end = self.places[link.source].x + link.leaves, self.places[link.target].x + self.arrivals[i]
        return [begin, *(lane.x for lane in self.layout.lanes[i]), end]

    def _tracks(self) -> list[dict[tuple[float, float], int]]:
        """The track on which a wire runs from one x to another below each layer; those that would meet have several."""
        found: list[dict[tuple[float, float], int]] = [{} for _ in self.heights]
        for i, link in enumerate(self.links):
            for layer, run in enumerate(itertools.pairwise(self._stops(i)), self.places[link.source].layer):
                if abs(run[0] - run[1]) > 1:
                    found[layer][run] = 0
        for runs in found:
            placed: list[tuple[float, float]] = []
            for run in sorted(runs, key=lambda run: (abs(run[0] - run[1]), run)):
                taken = {runs[other] for other in placed if other[0] != run[0] and _meet(run, other)}
                runs[run] = min(set(range(len(taken) + 1)) - taken)
                placed.append(run)
        return found

    def _solid(self, key: str) -> float:
        """The height of a box without what is written below it."""
        return self._frame(key)[2] if key in self.inner else self._size(key)[2]

    def _paint_block(self, scene: _Scene, key: str, x: float, y: float) -> None:
        box, inner = self.drawing.boxes[key], self.inner[key]
        left, width, height = self._frame(key)
        for card in (2, 1, 0) if box.times else (0,):
            scene.blocks.append(_rect("block", x - left + card * CARDS, y + card * CARDS, width, height, 8))
        scene.boxes.append(_text(x - left + PAD, y + 20, "name", _heading(box)))
        inner.paint(scene, x - inner.axis, y + HEAD, y + height)

    def _arrivals(self) -> list[float]:
        """Where each link arrives, to the right of the axis; where several do, the straightest is in the middle."""
        found = [link.arrives for link in self.links]
        for key in (key for key in self.places if key not in self.inner):
            links = [(i, link, self.layout.lanes[i]) for i, link in enumerate(self.links) if link.target == key]
            before = [lanes[-1].x if lanes else self.places[link.source].x + link.leaves for _, link, lanes in links]
            coming = sorted((x - self.places[key].x, i) for x, (i, _, _) in zip(before, links, strict=True))
            middle = min(range(len(coming)), key=lambda at: abs(coming[at][0]), default=0)
            room = (self._size(key)[0] - 8) / max(1, len(coming) - 1)
            for at, (_, i) in enumerate(coming):
                found[i] = (at - middle) * min(ARRIVE, room)
        return found


def _meet(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether two runs along x come closer than a bend."""
    return min(a) - 2 * BEND < max(b) and min(b) - 2 * BEND < max(a)


def _over(x: float, y: float, to_x: float) -> str:
    """Down to y, sideways to another x, and down again, with round bends."""
    wide = to_x - x
    if abs(wide) <= 1:
        return f"L{to_x:.1f} {y + BEND:.1f}"
    radius = min(BEND, abs(wide) / 2)
    turn = radius if wide > 0 else -radius
    first = f"V{y - radius:.1f}Q{x:.1f} {y:.1f} {x + turn:.1f} {y:.1f}"
    return f"{first}H{to_x - turn:.1f}Q{to_x:.1f} {y:.1f} {to_x:.1f} {y + radius:.1f}"


def _paint_box(scene: _Scene, box: Box, x: float, y: float, left: float, right: float, height: float) -> None:
    kind, radius = ("box", 6.0) if box.kind == "component" else ("pill", height / 2)
    middle = x + (right - left) / 2
    line, use = _line_width(box), _short(box.use)
    scene.boxes.append("<g>")
    scene.boxes.append(f"<title>{_escape(' '.join(filter(None, (box.name, box.use, box.settings))))}</title>")
    scene.boxes.append(_rect(kind, x - left, y, left + right, height, radius))
    scene.boxes.append(_text(middle - line / 2, y + 18, "name", _short(box.name)))
    if use:
        scene.boxes.append(_text(middle + line / 2 - _width(use, TEXT), y + 18, "soft", use))
    if box.parameters:
        count = _parameters(box)
        scene.boxes.append(_text(middle - _width(count, LABEL) / 2, y + 34, "label", count))
    scene.boxes.append("</g>")


def _text_size(box: Box) -> tuple[float, float]:
    width = max(_line_width(box), _width(_parameters(box), LABEL)) + 2 * PAD
    return max(width, 4 * PAD), 42.0 if box.parameters else 27.0


def _line_width(box: Box) -> float:
    """The width of name and component side by side."""
    return _width(_short(box.name), NAME) + (8 + _width(_short(box.use), TEXT) if box.use else 0.0)


def _labels(drawing: Drawing, key: str) -> dict[str, str]:
    """What is written at each output of a box that feeds something; its name too, where there are several."""
    labels = {edge.output: edge.label for edge in drawing.edges if edge.source == key}
    return {name: f"{name}: {label}" for name, label in labels.items()} if len(labels) > 1 else labels


def _parameters(box: Box) -> str:
    return f"{box.parameters:,} parameters" if box.parameters else ""


def _heading(box: Box) -> str:
    return f"{_short(box.name)}: {_short(box.use)}{f' × {box.times}' if box.times else ''}"


def _rect(kind: str, x: float, y: float, width: float, height: float, radius: float) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}" rx="{radius:.1f}"'
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" {size}/>'


def _text(x: float, y: float, kind: str, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{_escape(text)}</text>'


def _escape(text: str) -> str:
    """Text as XML may hold it."""
    return escape("".join(char if char.isprintable() else "�" for char in text))


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _width(text: str, size: float) -> float:
    """The width of a text in a fixed-width font, where a wide character takes the room of two."""
    return size * ADVANCE * sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
