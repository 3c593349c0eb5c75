"""Graphs with other inputs than the text: which input is stepped, what is worked out once, and what is refused."""

import pytest
import torch

from atinuke.compile.front import check_graph
from atinuke.compile.module import build, source_of
from atinuke.compile.step import StepPlan, can_step, plan_steps
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import AtinukeError
from atinuke.core.spec import loads

HEAD = "atinuke: 1\naxes: {batch: 1..9, sequence: 1..16, source: 1..16}\n"
ATTEND = "with: {d_model: 8, memory_dim: 8, heads: 2}"
EMBED = "with: {vocab_size: 9, d_model: 8}"


def checked(text: str) -> CheckedGraph:
    return check_graph(loads(HEAD + text))


def two_texts(first: str, second: str, outputs: str = "{y: C}") -> str:
    """A text `first` that is attended to by a text `second`."""
    return f"""
inputs: {{{first}: "int64[batch, source]", {second}: "int64[batch, sequence]"}}
nodes:
  E: {{use: text.embedding, in: {first}, {EMBED}}}
  D: {{use: text.embedding, in: {second}, {EMBED}}}
  C: {{use: attention.cross, in: {{x: D, memory: E}}, {ATTEND}}}
outputs: {outputs}
"""


# Loops, blocks, single nodes and the graph itself; what is given is read once, at every step, or both.
MANY = """
inputs:
  slopes: "float[2]"
  frames: "float[batch, source, 8]"
  mask: "bool[batch, source]?"
  own: "bool[batch, sequence]?"
  words: "int64[batch, sequence]"
blocks:
  look:
    inputs: {x: "float[batch, sequence, 8]", memory: "float[batch, source, 8]", mask: "bool[batch, source]?"}
    nodes:
      M: {use: norm.layer, in: memory, with: {d_model: 8}}
      C: {use: attention.cross, in: {x: x, memory: M, mask: mask}, with: {d_model: 8, memory_dim: 8, heads: 2}}
    outputs: C
  layer:
    inputs:
      x: "float[batch, sequence, 8]"
      frames: "float[batch, source, 8]"
      slopes: "float[2]"
      mine: "float[2]"
      mask: "bool[batch, source]?"
      own: "bool[batch, sequence]?"
    nodes:
      T: {use: identity, in: slopes}
      H: {use: attention.self, in: {x: x, slopes: T, attention_mask: own}, with: {d_model: 8, heads: 2}}
      I: {use: attention.self, in: {x: H, slopes: slopes}, with: {d_model: 8, heads: 2}}
      J: {use: attention.self, in: {x: I, slopes: mine}, with: {d_model: 8, heads: 2}}
      L: {use: look, in: {x: J, memory: frames, mask: mask}}
      A: {use: add, in: [x, L]}
    outputs: A
nodes:
  E: {use: text.embedding, in: words, with: {vocab_size: 9, d_model: 8}}
  N: {use: norm.layer, in: frames, with: {d_model: 8}}
  S: {use: identity, in: slopes}
  B: {use: position.alibi, with: {heads: 2}}
  F: {use: attention.self, in: {x: E, slopes: S}, with: {d_model: 8, heads: 2}}
  G: {use: attention.self, in: {x: F, slopes: slopes}, with: {d_model: 8, heads: 2}}
  stack: {use: layer, repeat: 3, in: {x: G, frames: N, slopes: S, mine: B, mask: mask, own: own}}
  one: {use: layer, in: {x: stack, frames: frames, slopes: slopes, mine: B, mask: mask}}
  C: {use: attention.cross, in: {x: one, memory: N}, with: {d_model: 8, memory_dim: 8, heads: 2}}
outputs: {y: C, frames: N}
"""


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_what_is_given_is_worked_out_once_and_steps_equal_forward(masked: bool) -> None:
    model = build(checked(MANY), dtype=torch.float64).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    given = {"slopes": torch.rand(2).double(), "frames": torch.randn(3, 5, 8).double()}
    if masked:
        given["mask"] = torch.arange(5) < torch.tensor([[5], [0], [3]])
    words = torch.randint(0, 9, (3, 7))
    expected = model(words=words, **given).y
    prepared = model.prepare(**given)
    calls: list[str] = []
    for name in ("N", "one.L.M", "stack.0.L.C.key_value"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    output, state = model.step(words[:, :3], torch.zeros(3, dtype=torch.int64), model.state(3, 7), prepared)
    torch.testing.assert_close(output.y, expected[:, :3])
    for at in range(3, 7):
        output, state = model.step(words[:, at : at + 1], torch.full((3,), at), state, prepared)
        torch.testing.assert_close(output.y[:, 0], expected[:, at])
    assert calls == []
    assert output._fields == ("y",)


def test_a_constant_memory_is_prepared_too() -> None:
    text = f"""
inputs: {{ids: "int64[2, sequence]", picture: "float[2, source, 8]"}}
nodes:
  E: {{use: text.embedding, in: ids, {EMBED}}}
  B: {{use: position.alibi, with: {{heads: 2}}}}
  H: {{use: attention.self, in: {{x: E, slopes: B}}, with: {{d_model: 8, heads: 2}}}}
  C: {{use: attention.cross, in: {{x: H, memory: picture}}, {ATTEND}}}
outputs: {{y: C}}
"""
    source = source_of(checked(text)).text
    prepare = source[source.index("def prepare") :]
    assert "self.B()" in source
    assert "self.B()" not in prepare


def plan(text: str) -> StepPlan:
    return plan_steps(checked(text))


def test_the_stepped_input_is_the_one_that_the_outputs_answer() -> None:
    assert plan(two_texts("question", "answer")).inputs == ("answer",)
    assert plan(two_texts("input_ids", "decoder_ids")).inputs == ("decoder_ids",)
    assert plan(two_texts("source_ids", "input_ids", "{y: C, memory: E}")).inputs == ("input_ids",)
    assert plan(two_texts("question", "answer")).given == ("question",)


def test_two_inputs_that_could_be_stepped_are_an_error() -> None:
    with pytest.raises(
        AtinukeError, match=r"any of question, answer could be the text\n  to fix: call the text `input_ids`"
    ):
        plan(two_texts("question", "answer", "{y: C, memory: E}"))


def refused(nodes: str, inputs: str = "", blocks: str = "") -> str:
    text = f"""
inputs: {{ids: "int64[batch, sequence]", slopes: "float[2]?", memory: "float[batch, source, 8]"{inputs}}}
{blocks}
nodes:
  E: {{use: text.embedding, in: ids, {EMBED}}}
{nodes}
outputs: {{y: C}}
"""
    graph = checked(text)
    assert not can_step(graph)
    assert not hasattr(build(graph), "prepare")
    with pytest.raises(AtinukeError) as caught:
        plan_steps(graph)
    return str(caught.value)


def test_what_cannot_be_stepped_says_why() -> None:
    assert "its port `memory` grows with the text" in refused(f"  C: {{use: attention.cross, in: [E, E], {ATTEND}}}")
    doubtful = refused("  C: {use: attention.self, in: {x: E, slopes: slopes}, with: {d_model: 8, heads: 2}}")
    assert "its port `slopes` is read at every step and may be left out" in doubtful
    needed = refused(f"  C: {{use: attention.cross, in: [E, memory], {ATTEND}}}", ', segment: "float[batch, sequence]"')
    assert "input `segment` is needed at every step" in needed
    carried = refused(
        "  S: {use: layer, repeat: 2, in: {x: E, memory: memory}}\n  C: {use: identity, in: S.x}",
        blocks=f"""blocks:
  layer:
    inputs: {{x: "float[batch, sequence, 8]", memory: "float[batch, source, 8]"}}
    nodes:
      M: {{use: norm.layer, in: memory, with: {{d_model: 8}}}}
      C: {{use: attention.cross, in: {{x: x, memory: M}}, {ATTEND}}}
    outputs: {{x: C, memory: M}}
""",
    )
    assert "`memory` goes from one instance to the next, but not with the text" in carried
