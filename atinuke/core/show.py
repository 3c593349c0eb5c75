"""A checked graph to look at: rows for a table, Mermaid text, and boxes with wires for `atinuke.core.svg`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from atinuke.core import dims
from atinuke.core.checked import ABSENT, CheckedBody, CheckedGraph, CheckedNode
from atinuke.core.cost import components, count_parameters
from atinuke.core.graph import Wire
from atinuke.core.spec import reference

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table


@dataclass(frozen=True)
class Box:
    """An input, component, block or output. A block is drawn once, as its first instance; `times` is its `repeat`.

    `settings` are those that the file gives, in short; the `parameters` of a block are those of all its instances.
    """

    kind: Literal["input", "component", "block", "output"]
    name: str
    use: str = ""
    settings: str = ""
    parameters: int = 0
    times: int | None = None
    inner: "Drawing | None" = None


@dataclass(frozen=True)
class Edge:
    """A wire from an output of one box to a port of another; `label` is what it carries (`float[batch, 384]`)."""

    source: str
    output: str
    target: str
    port: str
    label: str


@dataclass(frozen=True)
class Drawing:
    """The boxes of a body in the order of the file (the keys of outputs begin with `→`), and the wires between them."""

    boxes: Mapping[str, Box]
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Row:
    """A line of the table: `depth` counts the blocks around it; `sizes` is what goes out, by output."""

    depth: int
    box: Box
    sizes: Mapping[str, str]


def draw(body: CheckedBody) -> Drawing:
    """A body as boxes and wires."""
    boxes = {name: Box("input", name) for name, given in body.inputs.items() if given is not ABSENT}
    edges: list[Edge] = []
    for name, node in body.nodes.items():
        boxes[name] = _box(node)
        edges += [_edge(body, wire, name, port) for port, wires in node.feeds.items() for wire in wires]
    for name, wire in body.body.outputs.items():
        boxes[f"→{name}"] = Box("output", name)
        edges.append(_edge(body, wire, f"→{name}", ""))
    return Drawing(boxes, tuple(edge for edge in edges if edge.source in boxes))


def _box(node: CheckedNode) -> Box:
    if node.cls is not None:
        return Box("component", node.name, node.node.use, short_settings(node), count_parameters([node]))
    parameters = count_parameters(inner for body in node.instances for _, _, inner in components(body))
    times = len(node.instances) if node.repeated else None
    return Box("block", node.name, node.node.use, short_settings(node), parameters, times, draw(node.instances[0]))


def _edge(body: CheckedBody, wire: Wire, target: str, port: str) -> Edge:
    output = wire.output or ("" if wire.node in body.inputs else next(iter(body.nodes[wire.node].outputs)))
    return Edge(wire.node, output, target, port, str(body.type_of(wire)))


def short_settings(node: CheckedNode) -> str:
    """The settings that the file gives: `d_model=384 causal layer=$index`; and which linear maps have updates."""
    settings = (_setting(name, written, node.settings[name]) for name, written in node.node.settings.items())
    return " ".join([*settings, *(f"lora={name}" for name in node.lora)])


def _setting(name: str, written: Any, value: Any) -> str:
    inside = reference(written) if isinstance(written, str) else None
    if inside is not None and "index" in dims.names(dims.parse(inside)):
        return f"{name}={written}"
    if value is True:
        return name
    if isinstance(value, float):
        return f"{name}={value:.6g}"
    shown = "false" if value is False else "null" if value is None else str(value)
    return f"{name}={shown if shown.isprintable() else ascii(shown)}"


def rows(checked: CheckedGraph) -> list[Row]:
    """The lines of the table: inputs, nodes and outputs in the order of the file, those of a block below it."""
    return list(_rows(checked.body, 0))


def _rows(body: CheckedBody, depth: int) -> Iterator[Row]:
    for key, box in draw(body).boxes.items():
        if box.kind == "input":
            sizes = {"": str(body.inputs[key])}
        elif box.kind == "output":
            sizes = {"": str(body.outputs[box.name])}
        else:
            sizes = {name: str(given) for name, given in body.nodes[key].outputs.items()}
        if depth == 0 or box.inner or box.kind == "component":
            yield Row(depth, box, sizes)
        if box.inner:
            yield from _rows(body.nodes[key].instances[0], depth + 1)


def table(checked: CheckedGraph) -> "Table":
    """The graph as a table for rich: what each node is, what goes out of it, and its parameters."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    result = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text(checked.graph.name), title_justify="left")
    for name in ("node", "component", "settings", "gives", "parameters"):
        justify: JustifyMethod = "right" if name == "parameters" else "left"
        result.add_column(name, justify=justify, no_wrap=name != "settings")  # settings give way in a narrow terminal
    for row in rows(checked):
        result.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in _cells(row)))
    return result


def _cells(row: Row) -> tuple[str, ...]:
    box = row.box
    use = f"{box.use} × {box.times}" if box.times else box.use or box.kind
    count = f"{box.parameters:,}" if box.parameters else ""
    return "  " * row.depth + box.name, use, box.settings, "\n".join(_sizes(row)), count


def _sizes(row: Row) -> list[str]:
    """What goes out, one line an output; with its name, where there are several."""
    return [f"{name}: {size}" if len(row.sizes) > 1 else size for name, size in row.sizes.items()]


def mermaid(checked: CheckedGraph) -> str:
    """The graph as a Mermaid flowchart; blocks are subgraphs, and every wire says what it carries."""
    return "\n".join(["flowchart TB", *_Mermaid().body(draw(checked.body), "", "  ")]) + "\n"


class _Mermaid:
    """Numbers the boxes, because their names may mean something to Mermaid."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}

    def id(self, path: str) -> str:
        return self.ids.setdefault(path, f"n{len(self.ids)}")

    def body(self, drawing: Drawing, title: str, indent: str) -> Iterator[str]:
        for key, box in drawing.boxes.items():
            path = f"{title}{key}"
            if box.inner:
                times = f" × {box.times}" if box.times else ""
                yield f'{indent}subgraph {self.id(path)}["{_escape(f"{box.name}: {box.use}{times}")}"]'
                yield from self.body(box.inner, f"{path}.", indent + "  ")
                yield f"{indent}end"
            elif box.kind == "component":
                yield f'{indent}{self.id(path)}["{_escape(box.name)}<br/>{_escape(box.use)}"]'
            elif box.kind == "input" or not title:
                yield f'{indent}{self.id(path)}(["{_escape(box.name)}"])'
        for edge in drawing.edges:
            target = drawing.boxes[edge.target]
            if target.kind == "output" and title:
                continue  # the wire goes on outside
            source = _inmost(drawing, edge.source, edge.output, title)
            port = f"{edge.target}.{edge.port}" if target.inner else edge.target
            yield f'{indent}{self.id(source)} -->|"{_escape(edge.label)}"| {self.id(title + port)}'


def _inmost(drawing: Drawing, key: str, output: str, title: str) -> str:
    """The path of the component that a wire really comes from."""
    inner = drawing.boxes[key].inner
    if inner is None:
        return f"{title}{key}"
    edge = next(edge for edge in inner.edges if edge.target == f"→{output}")
    return _inmost(inner, edge.source, edge.output, f"{title}{key}.")


def _escape(text: str) -> str:
    """Text inside the quotes of a Mermaid label: whatever could end it or mean something becomes a character code."""
    return "".join(char if char.isalnum() or char in " _.,:=+*/×()[]-" else f"#{ord(char)};" for char in text)
