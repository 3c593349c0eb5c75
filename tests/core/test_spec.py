"""Graph files: read and written without loss, and never with an exception that is not ours."""

import keyword
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from atinuke import graphs as shipped
from atinuke.core.check import inspect_graph
from atinuke.core.dump import dump
from atinuke.core.errors import AtinukeError
from atinuke.core.graph import Graph
from atinuke.core.names import RESERVED
from atinuke.core.registry import Registry
from atinuke.core.spec import load, load_text, loads
from tests.core.graphs import graphs


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_a_drawn_graph_survives_writing_and_reading(graph: Graph) -> None:
    assert loads(dump(graph)) == graph


@pytest.mark.parametrize("name", shipped.names())
def test_a_shipped_graph_survives_writing_and_reading(name: str) -> None:
    graph = load(shipped.path(name))
    assert loads(dump(graph)) == graph
    assert list(loads(dump(graph)).nodes) == list(graph.nodes)


def test_names_that_the_generated_class_needs_are_reserved() -> None:
    found = {name: getattr(nn.Module(), name) for name in dir(nn.Module()) if not name.startswith("_")}
    # transformers adds to torch's class while it makes a model
    taken = {name for name, value in found.items() if not str(getattr(value, "__module__", "")).startswith("transf")}
    methods = {"state", "step", "prepare"}
    taken |= methods | {"capacity", "position", "last", "prepared"}
    assert taken <= RESERVED, sorted(taken - RESERVED)
    assert not any(map(keyword.iskeyword, RESERVED))


WORDS = st.sampled_from(
    [
        "atinuke",
        "name",
        "dims",
        "axes",
        "inputs",
        "blocks",
        "nodes",
        "outputs",
        "use",
        "in",
        "with",
        "repeat",
        "tie",
        "E",
        "O",
        "x",
        "layer",
        "$d_model",
        "${4*d}",
        "d_model",
        "text.embedding",
        "add",
        "identity",
        "norm.layer",
        "1",
        "0",
        "-1",
        "1..64",
        "64..1",
        "int64[batch]",
        "float[batch,d]",
        "true",
        "null",
        "1e400",
        ".nan",
        "int64[",
        "999999999999999999",
        "${",
        "$",
        "a.b.c",
        "E.weight",
        "input_ids",
        "forward",
        "class",
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
    ]
)
VALUES = st.recursive(
    st.one_of(WORDS, st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=5)),
    max_leaves=25,
)
FILES = st.fixed_dictionaries(
    {"atinuke": st.just(1)},
    optional=dict.fromkeys(("name", "dims", "axes", "inputs", "blocks", "nodes", "outputs"), VALUES),
)


@settings(max_examples=300, deadline=2000)
@given(st.one_of(FILES.map(repr), VALUES.map(repr), st.lists(WORDS).map(" ".join), st.lists(WORDS).map("\n".join)))
def test_no_file_breaks_the_loader_or_the_checker(text: str) -> None:
    graph, mistakes = load_text(text)
    checked, found = inspect_graph(graph, Registry())
    assert checked or mistakes or found
    for mistake in (*mistakes, *found):
        assert mistake.what
        assert "Traceback" not in str(mistake)


def _mutations() -> st.SearchStrategy[str]:
    text = shipped.path("atinuke").read_text()

    @st.composite
    def mutate(draw: st.DrawFn) -> str:
        changed = text
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(changed) - 1))
            size = draw(st.integers(0, 12))
            changed = changed[:at] + draw(st.one_of(WORDS, st.text(max_size=3))) + changed[at + size :]
        return changed

    return mutate()


@settings(max_examples=150, deadline=None)
@given(_mutations())
def test_no_mutation_of_a_shipped_file_breaks_the_checker(text: str) -> None:
    graph, mistakes = load_text(text)
    checked, found = inspect_graph(graph, Registry())
    assert checked or mistakes or found
    if not mistakes and not found:
        assert loads(dump(graph)) == graph


def test_a_file_that_is_not_a_mapping(tmp_path: Path) -> None:
    for text, got in (("", "nothing"), ("- a\n", "a list"), ("word\n", "'word'")):
        file = tmp_path / "graph.yaml"
        file.write_text(text)
        with pytest.raises(AtinukeError) as caught:
            load(file)
        assert str(caught.value) == (
            f"{file}:1  a graph file must be a mapping\n  got {got}\n  to fix: begin with `atinuke: 1`"
        )


def test_a_newer_format_is_refused() -> None:
    with pytest.raises(AtinukeError, match="format version is not known\n  got 2\n  this Atinuke reads 1"):
        loads("atinuke: 2\nnodes: {}\noutputs: {}\n")
