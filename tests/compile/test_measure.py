"""Costs against counts by hand, against what torch counts in real models, and against real tensors."""

import json
import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from atinuke import graphs
from atinuke.compile import measure
from atinuke.compile.formula import find_formula
from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.measure import MetaMeter
from atinuke.compile.module import build
from atinuke.compile.step import can_step
from atinuke.core import dims
from atinuke.core.checked import CheckedGraph
from atinuke.core.cost import Cost, cost
from atinuke.core.errors import AtinukeError
from atinuke.core.registry import Registry
from atinuke.core.spec import loads

B, S, C = dims.axis("batch"), dims.axis("sequence"), dims.axis("capacity")

SMALL = {
    "atinuke": ["vocab_size=50", "d_model=16", "heads=2", "layers=3"],
    "gpt2": ["vocab_size=50", "d_model=16", "heads=2", "layers=3"],
    "llama": ["vocab_size=50", "d_model=24", "heads=6", "kv_heads=2", "d_ff=20", "layers=3"],
    "experts": ["vocab_size=50", "d_model=16", "heads=2", "layers=3", "experts=3"],
    "encoder-decoder": ["vocab_size=50", "d_model=16", "heads=2", "layers=3"],
    "t5": ["vocab_size=50", "d_model=16", "heads=2", "head_dim=6", "d_ff=20", "reach=20", "layers=3"],
    "whisper": ["vocab_size=50", "d_model=16", "heads=2", "mels=8", "frames=20", "samples=160..6400", "layers=2"],
}
READ = {"encoder-decoder": "source", "t5": "source", "whisper": "samples"}


def sizes_of(name: str, batch: int, sequence: int) -> dict[str, int]:
    """The free sizes of a shipped decoder; a source is longer than its text."""
    more = {READ[name]: read(name, sequence)} if name in READ else {}
    return {"batch": batch, "sequence": sequence, **more}


def read(name: str, sequence: int) -> int:
    """How long what is read beside a text of that length is."""
    return 160 * sequence if READ[name] == "samples" else sequence + 2


def feeds(name: str, batch: int, sequence: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Tokens of these sizes, or sound."""
    tokens = {"input_ids": sequence} | ({"source_ids": read(name, sequence)} if READ.get(name) == "source" else {})
    found = {name: torch.randint(0, 50, (batch, length)) for name, length in tokens.items()}
    return found | ({"input_values": torch.randn(batch, read(name, sequence)).to(dtype)} if name == "whisper" else {})


def test_every_shipped_decoder_is_tested_here() -> None:
    assert set(SMALL) == {name for name in graphs.names() if can_step(open_graph(name))}


AXES, INPUTS = "{batch: 1..64, sequence: 1..4096}", "{x: 'float[batch, sequence, 8]'}"


def toy(nodes: str, inputs: str = INPUTS, blocks: str = "{}", axes: str = AXES) -> CheckedGraph:
    registry = Registry([EntryPoint("toy", "tests.compile.toys", "atinuke")])
    text = f"atinuke: 1\naxes: {axes}\ninputs: {inputs}\nblocks: {blocks}\nnodes:\n"
    return check_graph(loads(text + textwrap.indent(textwrap.dedent(nodes), "  ") + "outputs: {y: y}\n"), registry)


# By hand


def by_hand(d: int, f: int, v: int, n: int) -> dict[str, sympy.Expr]:
    """The Atinuke decoder with d_model d, d_ff f, vocabulary v and n layers."""
    norm = 2 * d
    attention = (3 * d * d + 3 * d) + (d * d + d)
    feedforward = (d * f + f) + (f * d + d)
    layer_flops = 2 * B * S * (4 * d * d + 2 * d * f) + 2 * (2 * B * S * S * d)
    outputs = B * S * ((3 + 9 * n) * d + v)  # E, drop, norm; nine nodes a layer; O
    return {
        "parameters": v * d + n * (2 * norm + attention + feedforward) + norm,
        "flops": n * layer_flops + 2 * B * S * d * v,
        "activation": 4 * outputs,
        "cache": 4 * n * 2 * B * C * d,
    }


def figures(result: Cost) -> dict[str, sympy.Expr]:
    return {
        "parameters": result.parameters,
        "flops": result.flops,
        "activation": result.activation_bytes("float32"),
        "cache": result.cache_bytes("float32"),
    }


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 5), st.integers(1, 8), st.integers(1, 99), st.integers(1, 999), st.integers(1, 4))
def test_the_decoder_costs_what_it_costs_by_hand(heads: int, width: int, f: int, v: int, layers: int) -> None:
    d = heads * width
    sets = [f"d_model={d}", f"heads={heads}", f"d_ff={f}", f"vocab_size={v}", f"layers={layers}"]
    found, expected = figures(cost(open_graph("atinuke", sets), MetaMeter())), by_hand(d, f, v, layers)
    assert {name: sympy.expand(found[name] - expected[name]) for name in expected} == dict.fromkeys(expected, 0)


def test_the_shipped_decoder_in_numbers() -> None:
    result = cost(open_graph("atinuke"), MetaMeter())
    at = result.at(batch=8, sequence=256, capacity=512)
    assert result.parameters == at.parameters == 13_793_280
    assert at.flops == 6 * (2 * 2048 * (4 * 384**2 + 2 * 384 * 1536) + 4 * 8 * 256**2 * 384) + 2 * 2048 * 384 * 8192
    assert at.training_flops == 3 * at.flops == int(result.training_flops.subs({B: 8, S: 256}))
    assert at.weight_bytes == {"float64": 110346240, "float32": 55173120, "bfloat16": 27586560, "float16": 27586560}
    assert at.cache_bytes is not None
    assert at.cache_bytes["bfloat16"] == 6 * 2 * 8 * 512 * 384 * 2


def test_a_model_of_174_billion_parameters_is_checked_and_counted_as_fast_as_a_small_one() -> None:
    program = """
        import json, time
        from atinuke.compile.front import open_graph
        from atinuke.compile.measure import MetaMeter
        from atinuke.core.cost import cost
        seconds = [time.process_time()]
        for sets in (["d_model=12", "heads=2", "layers=2"], ["d_model=12288", "layers=96"]):
            result = cost(open_graph("atinuke", sets), MetaMeter())
            seconds.append(time.process_time())
        # not ru_maxrss, which begins with the parent's
        peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        print(json.dumps([result.parameters, str(result.flops), seconds, int(peak.split()[1])]))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    expected = by_hand(12288, 4 * 12288, 8192, 96)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    parameters, flops, (begin, middle, end), kilobytes = json.loads(done.stdout)
    assert parameters == expected["parameters"] == 174_062_198_784
    assert flops == str(sympy.expand(expected["flops"]))
    assert kilobytes < 1_000_000
    assert end - middle < 3 * (middle - begin)  # 0.8; however slow a busy machine is


# Against real models


@pytest.mark.parametrize("name", SMALL)
def test_flops_are_those_that_torch_counts_in_the_real_model(name: str) -> None:
    checked = open_graph(name, SMALL[name])
    result = cost(checked, MetaMeter())
    model = build(checked).eval()
    for batch, sequence in ((1, 1), (2, 7), (3, 32)):
        at = result.at(**sizes_of(name, batch, sequence))
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
            logits = model(**feeds(name, batch, sequence)).logits
        assert forward.get_total_flops() == at.flops
        if name == "whisper":  # what comes before its first parameter, the spectrogram, has no gradients
            continue
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as backward:
            logits.sum().backward()
        assert forward.get_total_flops() + backward.get_total_flops() == at.training_flops


def flat(output: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_bytes_are_those_of_real_tensors(name: str, dtype: torch.dtype) -> None:
    checked = open_graph(name, SMALL[name])
    result = cost(checked, MetaMeter())
    model = build(checked, dtype)
    short = str(dtype).removeprefix("torch.")
    at = result.at(**sizes_of(name, 3, 5), capacity=11)
    assert at.cache_bytes is not None
    assert at.cache_bytes[short] == sum(tensor.nbytes for tensor in model.state(3, 11))
    assert at.weight_bytes[short] == sum(parameter.nbytes for parameter in model.parameters())
    held: list[int] = []
    paths = {node.path for node in result.nodes}
    for path, module in model.named_modules():
        if ".".join(part for part in path.split(".") if not part.isdigit()) in paths:
            module.register_forward_hook(lambda _, __, out: held.extend(t.nbytes for t in flat(out)))
    model(**feeds(name, 3, 5, dtype))
    assert at.activation_bytes[short] == sum(held)


def test_costs_of_nodes_add_up_and_name_their_instances() -> None:
    result = cost(open_graph("atinuke", SMALL["atinuke"]), MetaMeter())
    nodes = {node.path: node for node in result.nodes}
    assert nodes["stack.H"].instances == 3
    assert nodes["stack.H"].parameters == 3 * (4 * 16 * 16 + 4 * 16)
    assert nodes["stack.H"].cache == {"float": 3 * 2 * B * C * 16}
    assert nodes["O"].parameters == 0, "tied"
    assert nodes["O"].flops == 2 * B * S * 16 * 50
    assert sympy.Add(*(node.flops for node in result.nodes)).expand() == result.flops


# Third parties' components


def test_work_may_depend_on_rounded_sizes() -> None:
    axes = "{batch: 1..64, height: 16..512, width: 16..512}"
    inputs = "{x: 'float[batch, 3, height, width]'}"
    result = cost(toy("y: {use: toy:patches, in: x}\n", inputs, axes=axes), MetaMeter())
    h, w = dims.axis("height"), dims.axis("width")
    assert result.flops == 2 * B * 8 * 3 * 256 * sympy.floor(h / 16) * sympy.floor(w / 16)
    assert result.multiple == 1


def test_work_in_chunks_is_counted_at_their_multiples() -> None:
    result = cost(toy("y: {use: toy:chunks, in: x}\n", axes="{batch: 1..64, sequence: 1..512}"), MetaMeter())
    assert result.flops == 2 * B * S * 64
    assert result.multiple == 16
    assert result.at(batch=1, sequence=1).flops == 128, "the work without the padding"


def test_operators_of_their_own_are_counted_as_they_say() -> None:
    assert cost(toy("y: {use: toy:opaque, in: x, with: {counted: true}}\n"), MetaMeter()).flops == 16 * B * S**2
    with pytest.raises(AtinukeError, match=r"torch cannot count toys\.opaque\.default: give it a formula"):
        cost(toy("y: {use: toy:opaque, in: x, with: {counted: false}}\n"), MetaMeter())


def test_a_graph_that_cannot_be_stepped_has_no_cache() -> None:
    result = cost(toy("y: {use: toy:growing, in: x, with: {layer: 1}}\n"), MetaMeter())
    assert not result.steps
    assert result.cache_bytes("float32") is None
    assert result.at(batch=1, sequence=1, capacity=1).cache_bytes is None


def test_layers_that_differ_in_their_work_are_told_apart() -> None:
    layer = "{g: {use: toy:growing, in: x, with: {layer: $index}}}"
    blocks = f"{{layer: {{inputs: {{x: 'float[batch, sequence, 8]'}}, nodes: {layer}, outputs: g}}}}"
    result = cost(toy("y: {use: layer, repeat: 4, in: x}\n", blocks=blocks), MetaMeter())
    assert result.flops == (0 + 1 + 2 + 3) * 2 * (2 * B * S * S * 8)


def test_equal_layers_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def count(*arguments) -> sympy.Expr | None:
        measured.append(arguments)
        return find_formula(*arguments)

    monkeypatch.setattr(measure, "find_formula", count)
    numbers = []
    for layers in (2, 9):
        cost(open_graph("atinuke", [*SMALL["atinuke"], f"layers={layers}"]), MetaMeter())
        numbers.append(len(measured))
        measured.clear()
    assert numbers[0] == numbers[1]


def test_whole_numbers_keep_their_width() -> None:
    result = cost(toy("y: {use: toy:order, in: x}\n"), MetaMeter())
    assert result.nodes[0].outputs == {"int64": 8 * B * S}
    assert result.activation_bytes("float16") == 64 * B * S
    assert result.flops == 0
    assert not result.steps


def test_a_state_may_have_several_dtypes_and_rows_of_any_name() -> None:
    embed = "e: {use: text.embedding, in: x, with: {vocab_size: 9, d_model: 8}}\ny: {use: toy:counter, in: e}\n"
    result = cost(toy(embed, "{x: 'int64[2*rows, sequence]'}", axes="{rows: 1..64, sequence: 1..9}"), MetaMeter())
    rows = dims.axis("rows")
    assert {node.path: node.cache for node in result.nodes} == {"e": {}, "y": {"float": 16 * rows, "int32": 2 * rows}}
    assert result.cache_bytes("float16") == 2 * rows * (8 * 2 + 4)
    assert result.value(result.cache_bytes("float64"), rows=3) == 6 * (8 * 8 + 4)


@pytest.mark.parametrize(("component", "reason"), [("window", "no polynomial"), ("reader", "meta")])
def test_work_that_cannot_be_told_is_an_error_with_its_place(component: str, reason: str) -> None:
    with pytest.raises(AtinukeError) as error:
        cost(toy(f"y: {{use: toy:{component}, in: x}}\n"), MetaMeter())
    (mistake,) = error.value.mistakes
    assert mistake.what == f"y: the work of toy:{component} cannot be counted"
    assert reason in str(mistake.details)
    assert str(mistake.where) == "<text>:6"
