"""Tables and Mermaid text."""

import io
import re

import pytest
from rich.console import Console

from atinuke import graphs
from atinuke.compile.front import check_graph, open_graph
from atinuke.core.rewrite import prune
from atinuke.core.show import Box, Drawing, Edge, _cells, _Mermaid, _setting, draw, mermaid, rows, table
from atinuke.core.spec import loads

EXPERTS = """\
atinuke: 1
name: shown
dims: {d: 8, wide: true}
axes: {batch: 1..4}
inputs:
  x: float[batch, d]
  mask: bool[batch, 3]?
blocks:
  layer:
    inputs: {x: "float[batch, d]", mask: "bool[batch, 3]?", spare: "float[batch]?"}
    nodes:
      F: {use: feedforward.experts, in: x, with: {d_model: $d, d_ff: "${2*d}", experts: 4, top_k: 1}}
      D: {use: dropout, in: F, with: {rate: "${index/10}"}}
    outputs: {x: D, loss: F.balance_loss}
nodes:
  stack: {use: layer, repeat: 3, in: {x: x, mask: mask}}
  up: {use: feedforward.gelu, in: stack, with: {d_model: $d, d_ff: 4, bias: $wide, approximate: tanh}}
outputs: {y: up, losses: stack.loss}
"""


CELLS = [
    ("x", "input", "", "float[batch, 8]", ""),
    ("mask", "input", "", "bool[batch, 3]", ""),
    ("stack", "layer × 3", "", "x: float[batch, 8]\nloss: float[3]", "3,168"),
    (
        "  F",
        "feedforward.experts",
        "d_model=8 d_ff=16 experts=4 top_k=1",
        "output: float[batch, 8]\nbalance_loss: float[]",
        "1,056",
    ),
    ("  D", "dropout", "rate=${index/10}", "float[batch, 8]", ""),
    ("up", "feedforward.gelu", "d_model=8 d_ff=4 bias approximate=tanh", "float[batch, 8]", "76"),
    ("y", "output", "", "float[batch, 8]", ""),
    ("losses", "output", "", "float[3]", ""),
]


def shown(width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table(check_graph(loads(EXPERTS))))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_cells_of_the_table() -> None:
    assert [_cells(row) for row in rows(check_graph(loads(EXPERTS)))] == CELLS


def test_a_wide_terminal_shows_every_cell_and_a_narrow_one_all_but_the_settings() -> None:
    for width, columns in ((150, (0, 1, 2, 3, 4)), (80, (0, 1, 3, 4))):
        text = shown(width)
        assert text.startswith("shown ")
        assert max(map(len, text.splitlines())) <= width
        for cells in CELLS:
            first = " +".join(re.escape(cells[at].splitlines()[0]) for at in columns if cells[at])
            pattern = first if width == 150 else first.replace(" +", ".*")
            assert re.search(pattern, text), first


@pytest.mark.parametrize("name", graphs.names())
def test_every_node_of_a_shipped_graph_has_one_row(name: str) -> None:
    checked = open_graph(name)
    graph = checked.graph
    nodes = [*graph.nodes, *(node for block in prune(graph).blocks.values() for node in block.nodes)]
    expected = sorted([*graph.inputs, *nodes, *graph.outputs])
    assert sorted(row.box.name for row in rows(checked)) == expected


def test_absent_inputs_are_not_drawn_and_blocks_are_drawn_once() -> None:
    drawing = draw(check_graph(loads(EXPERTS)).body)
    assert list(drawing.boxes) == ["x", "mask", "stack", "up", "→y", "→losses"]
    inner = drawing.boxes["stack"].inner
    assert inner is not None
    assert list(inner.boxes) == ["x", "mask", "F", "D", "→x", "→loss"]
    assert drawing.boxes["stack"].times == 3
    wires = {(edge.source, edge.output, edge.target, edge.port): edge.label for edge in drawing.edges}
    assert wires == {
        ("x", "", "stack", "x"): "float[batch, 8]",
        ("mask", "", "stack", "mask"): "bool[batch, 3]",
        ("stack", "x", "up", "x"): "float[batch, 8]",
        ("up", "return", "→y", ""): "float[batch, 8]",
        ("stack", "loss", "→losses", ""): "float[3]",
    }


def test_mermaid() -> None:
    assert (
        mermaid(check_graph(loads(EXPERTS)))
        == """\
flowchart TB
  n0(["x"])
  n1(["mask"])
  subgraph n2["stack: layer × 3"]
    n3(["x"])
    n4(["mask"])
    n5["F<br/>feedforward.experts"]
    n6["D<br/>dropout"]
    n3 -->|"float[batch, 8]"| n5
    n5 -->|"float[batch, 8]"| n6
  end
  n7["up<br/>feedforward.gelu"]
  n8(["y"])
  n9(["losses"])
  n0 -->|"float[batch, 8]"| n3
  n1 -->|"bool[batch, 3]"| n4
  n6 -->|"float[batch, 8]"| n7
  n7 -->|"float[batch, 8]"| n8
  n5 -->|"float[3]"| n9
"""
    )


NESTED = """\
atinuke: 1
axes: {batch: 1..4}
inputs: {x: "float[batch, 4]"}
blocks:
  inner:
    inputs: {x: "float[batch, 4]"}
    nodes:
      F: {use: feedforward.experts, in: x, with: {d_model: 4, d_ff: 4, experts: 2}}
    outputs: {y: F, loss: F.balance_loss}
  outer:
    inputs: {x: "float[batch, 4]"}
    nodes:
      a: {use: inner, in: x}
      b: {use: add, in: a}
    outputs: {z: b, lost: a.loss}
nodes:
  s: {use: outer, in: x}
outputs: {z: s, lost: s.lost}
"""


def test_mermaid_follows_a_wire_out_of_nested_blocks() -> None:
    text = mermaid(check_graph(loads(NESTED)))
    names = dict(re.findall(r'(n\d+)[\[(]+"(\w+)', text))
    wires = {(names[a], size, names[b]) for a, size, b in re.findall(r'(n\d+) -->\|"(.*)"\| (n\d+)', text)}
    assert wires == {
        ("x", "float[batch, 4]", "x"),
        ("x", "float[batch, 4]", "F"),
        ("F", "float[batch, 4]", "b"),
        ("b", "float[batch, 4]", "z"),
        ("F", "float[]", "lost"),
    }


def test_mermaid_says_nothing_that_a_file_could_put_into_it() -> None:
    evil = 'a"]; click n0 "javascript:alert(1)" <script>&#34;%%{init}%%\n  end'
    boxes = {"x": Box("input", evil), "b": Box("component", evil, evil), "→y": Box("output", evil)}
    edges = (Edge("x", "", "b", "x", evil), Edge("b", "", "→y", "", evil))
    block = Box("block", evil, evil, times=2, inner=Drawing(boxes, edges))
    lines = list(_Mermaid().body(Drawing({"s": block}, ()), "", ""))
    safe = r'([^"<>&%;#\n{}]|#\d+;)*'
    label = f'"{safe}(<br/>{safe})?"'
    known = rf"\s*(subgraph n\d+\[{label}\]|n\d+(\[{label}\]|\(\[{label}\]\))|n\d+ -->\|{label}\| n\d+|end)"
    assert len(lines) == 5
    for line in lines:
        assert re.fullmatch(known, line)


def test_settings_cannot_move_the_cursor_of_a_terminal() -> None:
    assert _setting("separator", "x", "\x1b[2J\n") == r"separator='\x1b[2J\n'"
    assert _setting("separator", "x", "ü ") == "separator=ü "
    assert _setting("window", None, None) == "window=null"
    assert _setting("scale", "${d**0.5}", 19.595917942265423) == "scale=19.5959"


@pytest.mark.parametrize("name", graphs.names())
def test_every_mermaid_name_is_declared_once_and_every_wire_is_there(name: str) -> None:
    checked = open_graph(name)
    text = mermaid(checked)
    declared = re.findall(r"^\s*(?:subgraph )?(n\d+)[\[(]", text, re.M)
    assert len(declared) == len(set(declared))
    wires = re.findall(r"(n\d+) -->\|\"[^\"]*\"\| (n\d+)", text)
    assert {end for wire in wires for end in wire} <= set(declared)
    graph = checked.graph
    bodies = [graph.body(None), *prune(graph).blocks.values()]
    feeds = sum(len(node.inputs) for body in bodies for node in body.nodes.values())
    assert len(wires) == feeds + len(graph.outputs)
