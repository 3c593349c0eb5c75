"""Pictures: what is drawn is read back, and nothing may run into anything else."""

import itertools
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke import graphs
from atinuke.compile.front import check_graph, open_graph
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import AtinukeError
from atinuke.core.show import Box, Drawing, Edge, draw
from atinuke.core.spec import loads
from atinuke.core.svg import _Picture, _Scene, svg

Rect = tuple[float, float, float, float]
ADVANCE = {"name": 13 * 0.6, "soft": 12 * 0.6, "label": 11 * 0.6}  # a fixed-width font of the usual width


class Picture:
    """The shapes of an SVG, in numbers."""

    def __init__(self, text: str) -> None:
        self.root = ElementTree.fromstring(text)
        elements = [element for element in self.root.iter() if element.get("class")]
        kinds: dict[str, list[ElementTree.Element]] = {}
        for element in elements:
            kinds.setdefault(element.get("class", ""), []).append(element)
        self.boxes = [rect(e) for kind in ("box", "pill") for e in kinds.get(kind, [])]
        self.blocks = [rect(e) for e in kinds.get("block", [])]
        self.page = rect(kinds["page"][0])
        self.texts = [(e.text or "", span(e)) for kind in ADVANCE for e in kinds.get(kind, [])]
        self.labels = [(e.text or "", span(e)) for e in kinds["label"]]
        self.wires = [points(e.get("d", "")) for e in kinds.get("wire", [])]


def rect(element: ElementTree.Element) -> Rect:
    x, y, width, height = (float(element.get(name, "0")) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def span(element: ElementTree.Element) -> Rect:
    x, y, kind = float(element.get("x", "")), float(element.get("y", "")), element.get("class", "")
    return x, y - 9, x + len(element.text or "") * ADVANCE[kind], y + 2


def points(path: str) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for command, numbers in re.findall(r"([A-Z])([^A-Z]*)", path):
        values = [float(number) for number in numbers.split()]
        match command:
            case "V":
                found.append((found[-1][0], values[0]))
            case "H":
                found.append((values[0], found[-1][1]))
            case "M" | "L" | "Q":
                found += list(zip(values[::2], values[1::2], strict=True))
    return found


def overlap(a: Rect, b: Rect, slack: float = 0.5) -> bool:
    return a[0] + slack < b[2] and b[0] + slack < a[2] and a[1] + slack < b[3] and b[1] + slack < a[3]


def inside(a: Rect, b: Rect) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def segments(wire: list[tuple[float, float]]) -> list[Rect]:
    return [
        (min(a[0], b[0]) - 0.6, min(a[1], b[1]) - 0.6, max(a[0], b[0]) + 0.6, max(a[1], b[1]) + 0.6)
        for a, b in itertools.pairwise(wire)
    ]


def flat(wire: list[tuple[float, float]]) -> list[Rect]:
    """The parts of a wire that run sideways."""
    return [part for part in segments(wire) if part[3] - part[1] < 2 < part[2] - part[0]]


def along(a: Rect, b: Rect) -> bool:
    return abs(a[1] - b[1]) < 2 and a[0] < b[2] and b[0] < a[2]


def assert_clean(checked: CheckedGraph) -> Picture:
    picture = Picture(svg(checked))
    for a, b in itertools.combinations(picture.boxes, 2):
        assert not overlap(a, b), "two boxes"
    for wire in picture.wires:
        for part in segments(wire):
            assert not any(overlap(part, box, 1.5) for box in picture.boxes), "a wire through a box"
            assert not any(overlap(part, text) for _, text in picture.texts), "a wire through a text"
    for one, other in itertools.combinations(picture.wires, 2):
        if one[0] != other[0]:  # wires from one output may share their way
            assert not any(along(a, b) for a in flat(one) for b in flat(other)), "two wires on one line"
    for (_, a), (_, b) in itertools.combinations(picture.texts, 2):
        assert not overlap(a, b), "two texts"
    for _, text in picture.texts:
        assert inside(text, picture.page), "a text beyond the page"
        frames = (*picture.boxes, *picture.blocks)
        assert all(inside(text, frame) or not overlap(text, frame) for frame in frames), "a text over an edge"
    ends = [wire[-1] for wire in picture.wires]
    assert len(set(ends)) == len(ends), "two wires that arrive as one"
    for (x, y), *_ in picture.wires:
        sources = [box for box in (*picture.boxes, *picture.blocks) if box[0] < x < box[2] and abs(box[3] - y) < 0.2]
        assert sources, "a wire that begins at nothing"
    for a, b in itertools.combinations(picture.blocks, 2):
        near = abs(a[0] - b[0]) <= 8.1 and abs(a[1] - b[1]) <= 8.1  # cards of one block
        assert near or not overlap(a, b) or inside(a, b) or inside(b, a), "two blocks"
    for box in picture.boxes:
        assert all(inside(box, block) or not overlap(box, block) for block in picture.blocks), "a box over an edge"
    return picture


@pytest.mark.parametrize("name", graphs.names())
def test_shipped_graphs_are_drawn_cleanly_with_every_box_and_size(name: str) -> None:
    checked = open_graph(name)
    picture = assert_clean(checked)
    drawing = draw(checked.body)
    words = {text for text, _ in picture.texts}
    for body in (drawing, *(box.inner for box in drawing.boxes.values() if box.inner)):
        for box in body.boxes.values():
            if body is not drawing and box.kind == "output":  # a wire that leaves the block, with the name on it
                continue
            times = f" × {box.times}" if box.times else ""
            assert not box.name or box.name in words or f"{box.name}: {box.use}{times}" in words
        assert {edge.label for edge in body.edges} <= {text.rpartition(": ")[2] for text, _ in picture.labels}
    assert len(picture.wires) == sum(
        len(body.edges) for body in (drawing, *(box.inner for box in drawing.boxes.values() if box.inner))
    )


def test_the_residual_of_the_decoder_goes_round_what_it_skips() -> None:
    picture = assert_clean(open_graph("atinuke"))
    bent = [wire for wire in picture.wires if len({x for x, _ in wire}) > 2]
    assert len(bent) == 2, "add1 and add2; all other wires are straight"
    left = min(box[0] for box in picture.boxes)
    assert all(min(x for x, _ in wire) < left for wire in bent)


@st.composite
def texts(draw_: st.DrawFn) -> str:
    """Graphs with many ways between their nodes, in blocks and out of them."""

    def body(names: list[str], uses: list[str], indent: str) -> str:
        lines = []
        for i, use in enumerate(uses):
            if use == "add":
                wires = f"[{', '.join(draw_(st.lists(st.sampled_from(names), min_size=1, max_size=4)))}]"
            elif use == "feedforward.experts":
                wires = f"{draw_(st.sampled_from(names))}, with: {{d_model: 4, d_ff: 4, experts: 2}}"
            else:
                wires = f"{{x: {draw_(st.sampled_from(names))}, y: {draw_(st.sampled_from(names))}}}"
                wires += draw_(st.sampled_from(["", ", repeat: 2"]))
            names = [*names, f"n{i}" + "_long" * draw_(st.integers(0, 4))]
            lines.append(f"{indent}{names[-1]}: {{use: {use}, in: {wires}}}\n")
        used = {word for line in lines for word in re.findall(r"\w+", line.partition(" in: ")[2])}
        loose = [name for name in names if name not in used]
        return "".join([*lines, f"{indent}end: {{use: add, in: [{', '.join(loose or names[-1:])}]}}\n"])

    def more(nodes: str) -> str:
        """An output of some node that has two."""
        two = re.findall(r"(\w+): {use: (?:feedforward.experts|(one|two)), in: (?!.*repeat)", nodes)
        chosen = draw_(st.sampled_from([("end", ""), *two]))
        return chosen[0] if chosen[0] == "end" else f"{chosen[0]}.{'more' if chosen[1] else 'balance_loss'}"

    plain = st.lists(st.sampled_from(["add", "add", "feedforward.experts"]), max_size=5)
    blocks, known = "", []
    for name in draw_(st.sampled_from([[], ["one"], ["one", "two"]])):
        nodes = body(["x", "y"], draw_(st.permutations([*draw_(plain), *known])), "      ")
        inputs = "{x: 'float[batch, 4]', y: 'float[batch, 4]'}"
        outputs = f"{{x: end, more: {more(nodes)}}}"
        blocks += f"  {name}:\n    inputs: {inputs}\n    nodes:\n{nodes}    outputs: {outputs}\n"
        known.append(name)
    inputs = draw_(st.sampled_from([["a"], ["a", "b"], ["a", "b", "input_of_a_rather_long_name"]]))
    nodes = body(inputs, draw_(st.permutations([*draw_(plain), *draw_(plain), *known])), "  ")
    declared = "".join(f"  {name}: float[batch, 4]\n" for name in inputs)
    names = re.findall(r"^  (\w+):", nodes, re.M)
    outputs = ", ".join(f"out{i}: {name}" for i, name in enumerate(["end", *names[:2], more(nodes)]))
    head = f"atinuke: 1\naxes: {{batch: 1..4}}\ninputs:\n{declared}"
    return f"{head}blocks:\n{blocks}nodes:\n{nodes}outputs: {{{outputs}}}\n"


@settings(max_examples=60, deadline=None)
@given(texts())
def test_no_graph_is_drawn_with_anything_in_the_way(text: str) -> None:
    assert_clean(check_graph(loads(text)))


def test_everything_is_escaped_and_nothing_is_loaded_from_elsewhere() -> None:
    evil = '"><script>alert(1)</script>&\'<a href="x">\0\x1b'
    boxes = {"x": Box("input", evil), "b": Box("component", evil, evil, evil, 3), "→y": Box("output", evil)}
    edges = (Edge("x", "", "b", "x", evil), Edge("b", "", "→y", "", evil))
    scene = _Scene()
    _Picture(Drawing(boxes, edges)).paint(scene, 0, 0)
    root = ElementTree.fromstring("<svg>" + "".join([*scene.blocks, *scene.wires, *scene.boxes]) + "</svg>")
    assert {element.tag for element in root.iter()} == {"svg", "g", "title", "rect", "text", "path"}
    names = {name for element in root.iter() for name in element.attrib}
    assert names == {"class", "x", "y", "width", "height", "rx", "d"}


def test_long_names_are_shortened_and_kept_in_full_beside_the_picture() -> None:
    name = "n" * 500
    nodes = f"nodes: {{y: {{use: identity, in: {name}}}}}"
    head = f"atinuke: 1\naxes: {{b: 1..2}}\ninputs: {{{name}: 'float[b]'}}"
    text = svg(check_graph(loads(f"{head}\n{nodes}\noutputs: {{y: y}}\n")))
    picture = Picture(text)
    assert picture.page[2] < 600
    assert f"<title>{name}</title>" in text
    assert all(len(written) <= 44 for written, _ in picture.texts)


def test_a_graph_too_large_to_look_at_is_refused_at_once() -> None:
    nodes = "".join(f"  n{i}: {{use: add, in: [{'x' if i == 0 else f'n{i - 1}'}]}}\n" for i in range(400))
    text = f"atinuke: 1\naxes: {{b: 1..2}}\ninputs: {{x: 'float[b]'}}\nnodes:\n{nodes}outputs: {{y: n399}}\n"
    with pytest.raises(AtinukeError, match="402 boxes: too many to look at"):
        svg(check_graph(loads(text)))


def test_it_is_light_or_dark_as_the_screen_is() -> None:
    text = svg(open_graph("atinuke"))
    assert text.count("@media (prefers-color-scheme: dark)") == 1
    assert svg(open_graph("atinuke")) == text, "the same graph gives the same file"
