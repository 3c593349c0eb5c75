"""How the costs of nodes are put together; how they are measured is tested in tests/compile/test_measure.py."""

from collections.abc import Mapping

import pytest
import sympy

from atinuke.compile.front import check_graph
from atinuke.core import dims
from atinuke.core.checked import CheckedGraph, CheckedNode
from atinuke.core.cost import Cost, Inputs, Work, components, cost, count_parameters
from atinuke.core.errors import AtinukeError
from atinuke.core.graph import Range
from atinuke.core.spec import loads

TEXT = """\
atinuke: 1
dims: {d: 4}
axes: {batch: 1..8, sequence: 2..16}
inputs:
  ids: int64[batch, sequence]
  mask: bool[batch, sequence]
blocks:
  inner:
    inputs: {x: "float[batch, sequence, d]"}
    nodes:
      n: {use: norm.layer, in: x, with: {d_model: $d}}
    outputs: n
  outer:
    inputs: {x: "float[batch, sequence, d]", mask: "bool[batch, sequence]"}
    nodes:
      twice: {use: inner, repeat: 2, in: x}
      H: {use: attention.self, in: [twice, mask], with: {d_model: $d, heads: 2}}
    outputs: H
nodes:
  E: {use: text.embedding, in: ids, with: {vocab_size: 10, d_model: $d}}
  seen: {use: identity, in: E}
  stack: {use: outer, repeat: 3, in: {x: seen, mask: mask}}
  O: {use: head.vocabulary, in: stack, with: {d_model: $d, vocab_size: 10}, tie: {weight: E.weight}}
outputs: {logits: O}
"""
B, S, C = dims.axis("batch"), dims.axis("sequence"), dims.axis("capacity")


class Meter:
    """Says that every wire that comes in costs its elements; notes what it was asked."""

    def __init__(self, steps: bool = True) -> None:
        self.steps = steps
        self.asked: list[tuple[str, Inputs]] = []

    def work(self, title: str, node: CheckedNode, inputs: Inputs, axes: Mapping[str, Range]) -> Work:
        assert axes["batch"] == Range(1, 8)
        self.asked.append((title, inputs))
        flops = sympy.Add(*(sympy.Mul(*given.shape) for types in inputs.values() for given in types))
        return Work(flops, 8 if node.node.use == "norm.layer" else 1)

    def caches(self, checked: CheckedGraph) -> dict[str, dict[str, sympy.Expr]] | None:
        return {"stack.H": {"float": 5 * B * C, "int32": B}} if self.steps else None


@pytest.fixture(scope="module")
def checked() -> CheckedGraph:
    return check_graph(loads(TEXT))


@pytest.fixture(scope="module")
def result(checked: CheckedGraph) -> Cost:
    return cost(checked, Meter())


def test_nested_repeats_multiply(checked: CheckedGraph, result: Cost) -> None:
    meter = Meter()
    cost(checked, meter)
    asked = [title for title, _ in meter.asked]
    assert asked == ["E", "seen", *["stack.twice.n", "stack.twice.n", "stack.H"] * 3, "O"]
    assert [(node.path, node.use, node.instances) for node in result.nodes] == [
        ("E", "text.embedding", 1),
        ("seen", "identity", 1),
        ("stack.twice.n", "norm.layer", 6),
        ("stack.H", "attention.self", 3),
        ("O", "head.vocabulary", 1),
    ]
    assert [node.flops for node in result.nodes] == [B * S, 4 * B * S, 24 * B * S, 15 * B * S, 4 * B * S]
    assert result.flops == 48 * B * S
    assert result.training_flops == 144 * B * S
    assert result.multiple == 8


def test_the_meter_gets_what_comes_on_each_wire(checked: CheckedGraph) -> None:
    meter = Meter()
    cost(checked, meter)
    inputs = dict(meter.asked)["stack.H"]
    assert {port: [str(given) for given in types] for port, types in inputs.items()} == {
        "x": ["float[batch, sequence, 4]"],
        "attention_mask": ["bool[batch, sequence]"],
    }


def test_tied_parameters_count_once(checked: CheckedGraph, result: Cost) -> None:
    by_path = {node.path: node.parameters for node in result.nodes}
    assert by_path == {"E": 40, "seen": 0, "stack.twice.n": 6 * 8, "stack.H": 3 * (4 * 16 + 16), "O": 0}
    assert result.parameters == count_parameters(node for _, _, node in components(checked.body)) == 328
    assert result.weight_bytes("bfloat16") == 656


def test_bytes_go_by_dtype(checked: CheckedGraph, result: Cost) -> None:
    floats = (1 + 1 + 6 + 3) * 4 + 10
    assert result.activation_bytes("float64") == 8 * floats * B * S
    assert result.activation_bytes("float16") == 2 * floats * B * S
    assert result.cache_bytes("float32") == 20 * B * C + 4 * B
    assert result.cache_bytes("bfloat16") == 10 * B * C + 4 * B
    assert cost(checked, Meter(steps=False)).cache_bytes("float32") is None


def test_figures(result: Cost) -> None:
    figures = result.at(batch=2, sequence=3)
    assert (figures.parameters, figures.flops, figures.training_flops) == (328, 288, 864)
    assert figures.weight_bytes == {"float64": 2624, "float32": 1312, "bfloat16": 656, "float16": 656}
    assert figures.activation_bytes["float32"] == 4 * 54 * 6
    assert figures.cache_bytes is None
    assert result.at(batch=2, sequence=3, capacity=7).cache_bytes == {
        "float64": 568,
        "float32": 288,
        "bfloat16": 148,
        "float16": 148,
    }
    assert isinstance(figures.flops, int)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"batch": 2}, "axis `sequence` has no size\n  to fix: give it one: sequence=..."),
        ({"batch": 2, "sequence": 17}, "axis `sequence` must be 2..16\n  got 17\n  to fix: choose one in range"),
        ({"batch": 0, "sequence": 2}, "axis `batch` must be 1..8\n  got 0\n  to fix: choose one in range"),
        (
            {"batch": 2, "sequence": 2, "capacity": 0},
            "axis `capacity` must be at least 1\n  got 0\n  to fix: choose one in range",
        ),
        ({"batch": 2, "sequense": 2}, "`sequense` is not a free axis of the graph\n  to fix: use `sequence`"),
    ],
)
def test_wrong_sizes_are_errors(result: Cost, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(AtinukeError) as error:
        result.at(**sizes)
    assert str(error.value) == message
