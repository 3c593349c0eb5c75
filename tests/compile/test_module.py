"""The generated module: names, outputs, step form, stacking, ties, and what is refused."""

import textwrap

import pytest
import torch

from atinuke import graphs
from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.module import build, source_of
from atinuke.compile.step import can_step, plan_steps
from atinuke.core.cost import components, count_parameters
from atinuke.core.errors import AtinukeError
from atinuke.core.registry import Registry
from atinuke.core.rewrite import prune, rewrite, vocabulary_loss
from atinuke.core.spec import load, loads

SMALL = ["vocab_size=50", "d_model=16", "heads=2", "layers=3"]


def small(name: str, *more: str):
    return open_graph(name, [*SMALL, *more])


SHIPPED = {"atinuke": (), "gpt2": (), "llama": ("kv_heads=1", "d_ff=24"), "experts": ("experts=3",)}


def test_every_shipped_decoder_is_tested_here() -> None:
    elsewhere = {"encoder-decoder", "t5", "whisper"}  # tests/graphs, tests/pipelines/pretrained
    assert set(SHIPPED) | elsewhere == {name for name in graphs.names() if can_step(open_graph(name))}


@pytest.mark.parametrize("name", SHIPPED)
@torch.no_grad()
def test_steps_equal_forward_for_rows_of_different_lengths(name: str) -> None:
    torch.manual_seed(1)
    model = build(small(name, *SHIPPED[name])).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.randint(0, 50, (3, 12))
    expected = model(ids).logits
    lengths = torch.tensor([2, 5, 7])  # each row's prompt; what lies behind it in the first step is noise
    state = model.state(3, 12)
    output, state = model.step(ids[:, :7], torch.zeros(3, dtype=torch.int64), state)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(output.logits[row, :length], expected[row, :length], rtol=1e-4, atol=1e-5)
    for offset in range(5):
        at = lengths + offset
        output, state = model.step(ids.gather(1, at[:, None]), at, state)
        torch.testing.assert_close(output.logits[:, 0], expected[torch.arange(3), at], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SHIPPED)
@torch.no_grad()
def test_a_step_can_give_the_last_token_of_each_row_only(name: str) -> None:
    model = build(small(name, *SHIPPED[name])).eval()
    ids, zeros, last = torch.randint(0, 50, (3, 6)), torch.zeros(3, dtype=torch.int64), torch.tensor([5, 0, 2])
    whole, state = model.step(ids, zeros, model.state(3, 6))
    part, same = model.step(ids, zeros, model.state(3, 6), last=last)
    torch.testing.assert_close(part.logits[:, 0], whole.logits[torch.arange(3), last])
    assert all(map(torch.equal, state, same))


@pytest.mark.parametrize("name", SHIPPED)
def test_names_in_the_state_are_node_paths(name: str) -> None:
    model = build(small(name, *SHIPPED[name]))
    names = set(model.state_dict())
    assert {"E.weight", "stack.0.H.qkv.weight", "stack.2.H.output.weight", "O.weight"} <= names
    assert type(model.stack[0]) is type(model.stack[2])


def test_tied_weights_are_one_tensor() -> None:
    model = build(small("atinuke"))
    assert model.O.weight is model.E.weight
    assert sum(p.numel() for p in model.parameters()) == count_parameters(
        node for _, _, node in components(small("atinuke").body)
    )


def test_the_source_is_readable_and_knows_nothing_of_graphs() -> None:
    text = source_of(small("atinuke")).text
    assert "P = self.P(x)  # float[batch, sequence, 16]" in text
    assert "self.stack = nn.ModuleList(Layer(index) for index in range(3))" in text
    assert text.count("class Layer(") == 1
    assert "atinuke.core" not in text
    assert "yaml" not in text


def test_a_traceback_shows_the_generated_line() -> None:
    import traceback

    model = build(small("atinuke"))
    with pytest.raises(IndexError) as caught:
        model(torch.tensor([[99]]))
    assert "E = self.E(input_ids)" in "".join(traceback.format_tb(caught.value.__traceback__))


def test_settings_that_depend_on_the_instance_stay_expressions() -> None:
    checked = check_graph(
        loads(
            textwrap.dedent("""
            atinuke: 1
            dims: {n: 3}
            axes: {batch: 1..4}
            inputs: {x: "float[batch, 8]"}
            blocks:
              inner:
                inputs: {x: "float[batch, 8]"}
                nodes: {drop: {use: dropout, in: x, with: {rate: "${index/10}"}}}
                outputs: {x: drop, all: drop}
            nodes: {stack: {use: inner, repeat: $n, in: x}}
            outputs: {final: stack, all: stack.all}
            """)
        )
    )
    assert "Dropout(rate=index / 10)" in source_of(checked).text
    model = build(checked)
    assert [inner.drop.rate for inner in model.stack] == [0.0, 0.1, 0.2]
    output = model.eval()(torch.ones(2, 8))
    assert output.all.shape == (3, 2, 8)
    assert output.final.shape == (2, 8)


def test_optional_inputs_may_be_left_out() -> None:
    text = """
atinuke: 1
axes: {batch: 1..4, sequence: 1..16}
inputs: {x: "float[batch, sequence, 8]", mask: "bool[batch, sequence]?"}
nodes: {H: {use: attention.self, in: {x: x, attention_mask: mask}, with: {d_model: 8, heads: 2, causal: false}}}
outputs: {y: H}
"""
    checked = check_graph(loads(text))
    model = build(checked).eval()
    x, mask = torch.randn(2, 5, 8), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    torch.testing.assert_close(model(x).y[0], model(x, mask=mask).y[0])
    torch.testing.assert_close(model(x, mask).y[1, :3], model(x[1:, :3]).y[0])
    assert not can_step(checked)


NOT_STEPPED = """
atinuke: 1
axes: {batch: 1..4, sequence: 1..16}
inputs: {ids: "int64[batch, sequence]"}
nodes:
  E: {use: text.embedding, in: ids, with: {vocab_size: 9, d_model: 8}}
  C: {use: %s}
outputs: {y: %s}
"""


@pytest.mark.parametrize(
    ("node", "output", "message"),
    [
        (
            "attention.self, in: E, with: {d_model: 8, heads: 2, causal: false}",
            "C",
            r"C: attention.self cannot be stepped\n  attention that is not causal",
        ),
        ("concat, in: [E, E]", "C", r"graph `graph` cannot be stepped\n  none of its outputs has an answer"),
        ("mean, in: E", "C", r"graph `graph` cannot be stepped\n  none of its outputs has an answer"),
    ],
)
def test_what_cannot_be_stepped_says_why(node: str, output: str, message: str) -> None:
    checked = check_graph(loads(NOT_STEPPED % (node, output)))
    with pytest.raises(AtinukeError, match=message):
        plan_steps(checked)
    assert not hasattr(build(checked), "step")


def test_the_training_graph_has_the_same_parameters_and_the_same_loss() -> None:
    graph = load(graphs.path("experts"))
    training = check_graph(rewrite(graph, ["vocabulary_loss"], Registry()))
    torch.manual_seed(0)
    model = build(small("experts")).eval()
    from atinuke.core.override import override

    trained = build(check_graph(rewrite(override(graph, SMALL), ["vocabulary_loss"], Registry()))).eval()
    assert set(trained.state_dict()) == set(model.state_dict())
    assert set(training.body.outputs) == {"loss", "balance_loss"}
    trained.load_state_dict(model.state_dict())
    ids = torch.randint(0, 50, (2, 9))
    labels = ids.roll(-1, 1)
    labels[:, -1] = -100
    expected = torch.nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(trained(ids, labels).loss, expected)
    torch.testing.assert_close(trained(ids, labels).balance_loss, model(ids).balance_loss)


def test_vocabulary_loss_requires_a_vocabulary_head() -> None:
    graph = loads("atinuke: 1\ninputs: {x: 'float[2, 3]'}\nnodes: {y: {use: identity, in: x}}\noutputs: {logits: y}\n")
    with pytest.raises(AtinukeError, match=r"cannot be trained to predict tokens\n.*\n  got y \(identity\)"):
        vocabulary_loss(graph)


def test_prune_removes_what_no_output_needs() -> None:
    graph = loads(
        "atinuke: 1\ninputs: {x: 'float[2, 3]'}\nnodes:\n  a: {use: identity, in: x}\n  b: {use: identity, in: a}\n"
        "  c: {use: add, in: [a, b]}\noutputs: {y: b}\n"
    )
    assert list(prune(graph).nodes) == ["a", "b"]


def test_weights_that_cannot_fit_are_refused_before_memory_is_touched() -> None:
    checked = open_graph("atinuke", ["d_model=12288", "heads=96", "layers=96", "vocab_size=50257"])
    with pytest.raises(AtinukeError, match=r"does not fit into memory\n  its weights need 69[0-9]\.. GB as float32\n"):
        build(checked)
