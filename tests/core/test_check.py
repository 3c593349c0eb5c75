"""The checker: sizes and dtypes on every wire, every mistake at once, in words that are asserted."""

import textwrap

import pytest

from atinuke.compile.front import check_graph
from atinuke.compile.meta import MetaProbe
from atinuke.core.check import inspect_graph
from atinuke.core.errors import AtinukeError, Mistake
from atinuke.core.registry import Registry
from atinuke.core.spec import load_text

PLANTED = """\
atinuke: 1
name: planted
dims: {vocab_size: 100, d_model: 512, heads: 8, d_ff: 4*d_modle, layers: 2}
axes: {batch: 1..64, sequence: 1..1024, frames: 10..1}
inputs:
  input_ids: int64[batch, sequence]
  heard: float[batch, sequence, 80]
  seen: flaot[batch]
blocks:
  layer:
    inputs: {x: "float[batch, sequence, d_model]"}
    nodes:
      norm: {use: norm.layer, in: x, with: {d_model: $d_model}}
      H:    {use: attention.self, in: norm, with: {d_model: $d_model, heads: 7}}
      add:  {use: add, in: [x, H]}
    outputs: add
notes: remove me
nodes:
  E:     {use: text.embeding, in: input_ids, with: {vocab_size: $vocab_size, d_model: $d_model}}
  E2:    {use: text.embedding, in: input_ids, with: {vocab_size: $vocab, d_model: $d_model}}
  heard_norm: {use: norm.layer, in: heard, with: {d_model: $d_model}}
  ids:   {use: norm.layer, in: input_ids, with: {d_model: $d_model}}
  stack: {use: layer, repeat: $layers, in: E}
  early: {use: add, in: [late, E]}
  late:  {use: norm.layer, in: {y: E}, with: {d_model: $d_model}}
  small: {use: norm.layer, in: E, with: {d_model: $d_model, epsilon: 1e-6}}
  E:     {use: identity, in: heard}
  gone:  {use: identity, in: nowhere}
  typed: {use: dropout, in: E, with: {rate: much}}
outputs: {a: E2, b: heard_norm, c: ids, d: stack, e: early, f: small, g: gone, h: typed}
"""

EXPECTED = """\
planted.yaml:3  dim `d_ff` has no value
  `d_modle` is not known
  to fix: use `d_model`
planted.yaml:4  axis `frames` has an empty range
  got 10..1
  to fix: write low..high with 1 <= low <= high
planted.yaml:8  input `seen` has the unknown dtype `flaot`
  to fix: use `float`
planted.yaml:14  stack.H: attention.self refuses its settings
  d_model 512 is not a multiple of heads 7
  to fix: change the settings
planted.yaml:17  unknown key `notes`
  to fix: use `nodes`
planted.yaml:19  E: no component is called `text.embeding`
  to fix: use `text.embedding`
planted.yaml:20  E2: setting `vocab_size`: `vocab` is not a dim
  to fix: use `vocab_size`
planted.yaml:21  heard_norm: port `x` does not fit
  axis 2 must be d_model = 512, but is 80
  fed by `heard` (line 7, input float[batch, sequence, 80])
  to fix: put a component between them, or set d_model to 80
planted.yaml:22  ids: port `x` does not fit
  must be float, but is int64
  fed by `input_ids` (line 6, input int64[batch, sequence])
  to fix: feed `x` with x: float[*lead d_model]
planted.yaml:24  `early.terms` is fed by `late`, which stands below
  to fix: move it above; cycles are not allowed
planted.yaml:25  late: norm.layer has no port `y`
  to fix: use one of: x
planted.yaml:26  small: norm.layer has no setting `epsilon`
  to fix: use `eps`
planted.yaml:27  key `E` is repeated
  first given on line 19
  to fix: keep one of them
planted.yaml:28  `gone.x` is fed by `nowhere`, which does not exist
  to fix: use one of: input_ids, heard, seen, E, E2, heard_norm, ids, stack, early, late, small
planted.yaml:29  typed: setting `rate`: input should be a valid number, but is 'much'
  to fix: see `atinuke plugins show dropout`"""


def mistakes_of(text: str, file: str = "f.yaml") -> list[Mistake]:
    graph, mistakes = load_text(text, file)
    try:
        check_graph(graph, Registry(), mistakes)
    except AtinukeError as error:
        return list(error.mistakes)
    return []


def test_fifteen_planted_mistakes_give_fifteen_messages() -> None:
    mistakes = mistakes_of(PLANTED, "planted.yaml")
    assert "\n".join(map(str, mistakes)) == EXPECTED
    assert len(mistakes) == 15


def graph(nodes: str, inputs: str = "x: float[batch, sequence, 8]", outputs: str = "{y: y}", more: str = "") -> str:
    """A graph file around a few nodes."""
    return (
        "atinuke: 1\ndims: {d_model: 8, n: 3}\naxes: {batch: 1..4, sequence: 2..16}\n"
        f"inputs:\n  {inputs}\n{textwrap.dedent(more)}nodes:\n{textwrap.indent(nodes, '  ')}\noutputs: {outputs}\n"
    )


def one(text: str) -> str:
    """The only message that a file gives, without its place."""
    (mistake,) = mistakes_of(text)
    return str(mistake).partition("  ")[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            graph("y: {use: position.learned, in: x, with: {d_model: 8, length: 15}}"),
            "y: axis `sequence` goes up to 16, beyond length = 15\n  to fix: lower the axis's range, or raise length",
        ),
        (graph("y: {use: identity, in: x}\nz: {use: identity, in: x}"), "node `z` is not used by anything\n"),
        (graph("y: {use: identity}"), "y: port `x` is not fed\n  to fix: wire something to `x`"),
        (graph("y: {use: identity, in: [x, x]}"), "y: identity takes 1 wires, but is fed 2\n"),
        (graph("y: {use: identity, in: x.z}"), "`x` has no output `z`"),
        (graph("y: {use: identity, in: x, repeat: 2}"), "y: only a block can be repeated\n"),
        (graph("y: {use: identity, in: x}", outputs="{}"), "the graph has no outputs\n"),
        (
            graph("y: {use: identity, in: x}", inputs="x: 'float[batch, 8]?'"),
            "y: port `x` needs `x`, which may be absent\n  to fix: remove the `?` from input `x`",
        ),
        (
            graph("y: {use: identity, in: x}", inputs="x: float[batch, length]"),
            "input `x` has an unknown size `length`\n  `length` is not known\n",
        ),
        (
            graph("y: {use: identity, in: x}", inputs="x: float[batch, sequence-2]"),
            "input `x` needs sizes that are whole and at least 1\n  `sequence-2` is 0 at sequence = 2\n",
        ),
        (
            graph("y: {use: identity, in: x}", inputs="x: float[batch, 17-sequence, 16-sequence]"),
            "input `x` needs sizes that are whole and at least 1\n  `16-sequence` is 0 at sequence = 16\n",
        ),
        (
            graph("y: {use: identity, in: x}", inputs="x: float[batch, sequence/2]"),
            "input `x` needs sizes that are whole and at least 1\n  `sequence/2` is not whole\n",
        ),
        (
            graph(
                "y: {use: text.embedding, in: x, with: {d_model: 8, vocab_size: $v}}", inputs="x: int64[batch, 8]"
            ).replace("n: 3", "n: 3, v: 10**20"),
            "y: text.embedding refuses its settings\n  its tensors are beyond any memory\n",
        ),
        (
            graph(
                "y: {use: text.embedding, in: x, with: {d_model: 8, vocab_size: $v}}", inputs="x: int64[batch, 8]"
            ).replace("n: 3", "n: 3, v: 10**15"),
            "the graph has 8,000,000,000,000,000 parameters, more than 1,000,000,000,000,000\n",
        ),
        (
            graph('y: {use: attention.self, in: x, with: {d_model: 8, heads: "${n+0.5}"}}'),
            "y: setting `heads`: input should be a valid integer, but is 3.5\n",
        ),
        (
            graph('y: {use: dropout, in: x, with: {rate: "${1/0}"}}'),
            "y: setting `rate` cannot be worked out\n  division by zero",
        ),
        (
            graph("y: {use: add, in: [x, z]}", inputs="x: 'float[batch, 8]'\n  z: 'float[batch, 7]'"),
            "y: port `terms` does not fit\n",
        ),
        (graph("y: {use: nothing:at.all, in: x}"), "y: no plugin called `nothing` is installed\n"),
        (
            graph(
                "a: {use: norm.layer, in: x, with: {d_model: 8}}\n"
                "y: {use: norm.layer, in: a, with: {d_model: 8}, tie: {weight: a.gain}}"
            ),
            "y: `a` has no parameter `gain`\n  to fix: use one of: weight, bias",
        ),
        (
            graph("y: {use: norm.layer, in: x, with: {d_model: 8}, tie: {weight: z.weight}}"),
            "y: tie to `z`, which is no node above",
        ),
    ],
)
def test_a_mistake_is_told_in_these_words(text: str, message: str) -> None:
    assert one(text).startswith(message)


BLOCK = """
blocks:
  inner:
    inputs: {{x: "float[batch, length, d_model]", mask: "bool[batch, length]?"}}
    nodes:
      H:
        use: attention.self
        in: {{x: x, attention_mask: mask}}
        with: {{d_model: $d_model, heads: 2, causal: false}}
      a: {{use: add, in: [x, H]}}
    outputs: {outputs}
"""


def checked(text: str):
    graph, mistakes = load_text(text, "f.yaml")
    return check_graph(graph, Registry(), mistakes)


def test_a_repeated_block_carries_what_has_an_inputs_name_and_stacks_the_rest() -> None:
    text = graph(
        "s: {use: inner, repeat: $n, in: x}\ny: {use: identity, in: s.H}",
        more=BLOCK.format(outputs="{x: a, H: H}"),
        outputs="{y: y, x: s}",
    )
    outputs = checked(text).body.outputs
    assert str(outputs["x"]) == "float[batch, sequence, 8]"
    assert str(outputs["y"]) == "float[3, batch, sequence, 8]"


def test_an_optional_input_of_a_block_may_be_fed_or_not() -> None:
    more = BLOCK.format(outputs="a")
    assert checked(graph("y: {use: inner, in: x}", more=more))
    fed = "x: float[batch, sequence, 8]\n  m: bool[batch, sequence]"
    assert checked(graph("y: {use: inner, in: {x: x, mask: m}}", inputs=fed, more=more))
    wrong = "x: float[batch, sequence, 8]\n  m: bool[batch, 5]"
    message = one(graph("y: {use: inner, in: {x: x, mask: m}}", inputs=wrong, more=more))
    assert message.startswith("y: port `mask` does not fit\n  axis 1 must be length = sequence, but is 5")


def test_a_block_may_be_given_other_dims() -> None:
    inputs = "x: float[batch, sequence, 4]"
    text = graph("y: {use: inner, in: x, with: {d_model: 4}}", inputs=inputs, more=BLOCK.format(outputs="a"))
    assert str(checked(text).body.outputs["y"]) == "float[batch, sequence, 4]"
    assert one(text.replace("d_model: 4}", "d_modell: 4}")).startswith("y: block `inner` can be given only dims, not")


def test_a_block_may_name_part_of_an_axis() -> None:
    more = """
    blocks:
      halve:
        inputs: {x: "float[batch, sequence//2, d_model]"}
        nodes: {a: {use: identity, in: x}}
        outputs: a
    """
    nodes = "y: {use: halve, in: x}"
    assert checked(graph(nodes, inputs="x: 'float[batch, sequence//2, 8]'", more=more))
    message = one(graph(nodes, inputs="x: 'float[batch, 1+sequence//3, 8]'", more=more))
    assert "axis 1 cannot be read as sequence//2 from sequence//3 + 1" in message


def test_settings_that_a_constructor_refuses_are_one_mistake() -> None:
    assert one(graph("y: {use: position.rotary, in: x, with: {head_dim: 0}}")).startswith("y: position.rotary refuses")


def test_blocks_cannot_be_recursive() -> None:
    more = """
    blocks:
      a:
        inputs: {x: "float[batch, sequence, 8]"}
        nodes: {b: {use: b, in: x}}
        outputs: b
      b:
        inputs: {x: "float[batch, sequence, 8]"}
        nodes: {a: {use: a, in: x}}
        outputs: a
    """
    assert "block `b` is not above" in one(graph("y: {use: a, in: x}", more=more))


def test_a_graph_of_absurd_size_is_refused_before_it_is_expanded() -> None:
    huge = graph("y: {use: inner, repeat: 1000000, in: x}", more=BLOCK.format(outputs="a"))
    assert one(huge).startswith("y: the graph would have 2,000,001 nodes, more than 20,000\n")
    none = graph("y: {use: inner, repeat: 0, in: x}", more=BLOCK.format(outputs="a"))
    assert one(none) == "y: repeat must be a whole number, at least 1\n  got 0"


def test_without_a_probe_only_constructors_stay_silent() -> None:
    text = graph("y: {use: attention.self, in: x, with: {d_model: 8, heads: 3}}")
    read, _ = load_text(text)
    assert inspect_graph(read, Registry())[1] == []
    (mistake,) = inspect_graph(read, Registry(), MetaProbe())[1]
    assert mistake.details == ("d_model 8 is not a multiple of heads 3",)


def test_a_block_inside_a_block_cannot_depend_on_the_instance() -> None:
    more = """
    blocks:
      one:
        inputs: {x: "float[batch, sequence, d_model]"}
        nodes: {a: {use: identity, in: x}}
        outputs: a
      two:
        inputs: {x: "float[batch, sequence, d_model]"}
        nodes: {b: {use: one, repeat: "${index+1}", in: x}}
        outputs: b
    """
    message = one(graph("y: {use: two, repeat: 3, in: x}", more=more))
    assert message.startswith("y.b: a block inside a block cannot depend on `$index`")


def test_blocks_that_double_at_every_level_are_refused_quickly() -> None:
    levels = ['b0: {inputs: {x: "float[batch, 8]"}, nodes: {n: {use: identity, in: x}}, outputs: n}']
    for i in range(1, 25):
        nodes = f"{{n: {{use: b{i - 1}, in: x}}, m: {{use: b{i - 1}, in: n}}}}"
        levels.append(f'b{i}: {{inputs: {{x: "float[batch, 8]"}}, nodes: {nodes}, outputs: m}}')
    text = "atinuke: 1\naxes: {batch: 1..4}\ninputs: {x: 'float[batch, 8]'}\nblocks:\n  "
    text += "\n  ".join(levels) + "\nnodes: {y: {use: b24, in: x}}\noutputs: {y: y}\n"
    assert any("more than 20,000 nodes" in str(mistake) for mistake in mistakes_of(text))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("(((batch**64)**64)**64)**64", "the size is too complex"),
        ("(batch+sequence+n)**60", "the size is too complex"),
        ("batch//(sequence-2)", "it divides by zero at batch = 1, sequence = 2"),
        ("batch%(sequence-2)", "it divides by zero at batch = 1, sequence = 2"),
        ("batch/(sequence-2)", "it divides by zero at batch = 1, sequence = 2"),
    ],
)
def test_sizes_that_cannot_be_worked_out_are_refused(size: str, message: str) -> None:
    assert message in one(graph("y: {use: identity, in: x}", inputs=f"x: 'float[{size}]'"))


def test_a_size_of_too_many_axes_is_refused() -> None:
    names = [f"a{n}" for n in range(40)]
    text = graph("y: {use: identity, in: x}", inputs=f"x: 'float[{'+'.join(names)}]'")
    message = one(text.replace("axes: {", "axes: {" + "".join(f"{name}: 1..2, " for name in names)))
    assert "a size that depends on more than 8 axes is not allowed" in message


def test_an_empty_block_cannot_be_repeated_without_end() -> None:
    more = "blocks: {none: {inputs: {x: 'float[batch, sequence, 8]'}, outputs: x}}\n"
    assert "would have 1,000,000,000,001 nodes" in one(graph("y: {use: none, repeat: 1000000000000, in: x}", more=more))


def test_a_constructor_that_leaves_is_a_mistake() -> None:
    class Leaving(MetaProbe):
        def parameters(self, cls, settings):
            raise SystemExit(0)

    read, _ = load_text(graph("y: {use: identity, in: x}"))
    (mistake,) = inspect_graph(read, Registry(), Leaving())[1]
    assert "refuses its settings" in str(mistake)


@pytest.mark.parametrize("written", ["repeat: $for", "repeat: '${1+}'"])
def test_what_looks_like_a_reference_and_is_none(written: str) -> None:
    text = graph(f"y: {{use: inner, {written}, in: x}}", more=BLOCK.format(outputs="a"))
    assert "`repeat` must be a whole number or `$name`" in one(text)


def test_a_size_may_hold_commas_of_its_own() -> None:
    text = graph("y: {use: identity, in: x}", inputs="x: 'float[max(2, min(3, batch)), 8]'")
    assert str(checked(text).body.inputs["x"]) == "float[Max(2, Min(3, batch)), 8]"


def test_what_is_no_mapping_is_one_mistake() -> None:
    assert one("").startswith("a graph file must be a mapping\n  got nothing")
    assert one("[1]").startswith("a graph file must be a mapping\n  got a list")


def test_a_number_without_end_is_refused() -> None:
    assert one(graph("y: {use: dropout, in: x, with: {rate: $r}}").replace("n: 3", "n: 3, r: 1e308*1e308")).startswith(
        "dim `r` has no value\n  the result is not a finite number"
    )
