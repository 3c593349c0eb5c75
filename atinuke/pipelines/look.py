"""What a node of a graph gives for one row, with what went into it."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atinuke.compile.front import check_graph
from atinuke.compile.module import build
from atinuke.core import dims
from atinuke.core.checked import CheckedBody, CheckedGraph, CheckedNode
from atinuke.core.errors import AtinukeError, fail
from atinuke.core.graph import Wire
from atinuke.core.names import close
from atinuke.core.signature import Dim
from atinuke.pipelines.beginning import open_beginning
from atinuke.pipelines.examples import Example
from atinuke.pipelines.feed_rows import known, require
from atinuke.pipelines.fields import Array, Field, decode
from atinuke.pipelines.objective_labels import CTC, Classification
from atinuke.pipelines.part import part
from atinuke.pipelines.recipe import Recipe, load_recipe
from atinuke.pipelines.rows import Row, open_rows
from atinuke.pipelines.run import Trained, open_model
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.pipelines.train import TOKENIZER
from atinuke.pipelines.validation import answer, batch_of, rows_of

MASK = "mask"


@dataclass(frozen=True)
class Sense:
    """A field that the node depends on: its value, None where it is missing, and its text where it is one."""

    name: str
    field: Field
    value: Array | None
    text: str | None


@dataclass(frozen=True)
class View:
    """The value of `node`, a component or block called `use`, for one row: an axis for each name in `axes`.

    `mask` says which places of the first axis count, where the node says so. `classes` are the names of those that the
    last axis scores, `right` the one of the row. `weights` says whose weights were used; `place` where the row stands.
    """

    node: str
    use: str
    settings: Mapping[str, Any]
    value: Array
    axes: tuple[str, ...]
    mask: Array | None
    senses: tuple[Sense, ...]
    classes: tuple[str, ...] | None
    right: str | None
    weights: str
    place: str


def look(subject: Path, node: str, row: int = 1) -> View:
    """Runs the graph of a run, or of a recipe with the weights that its seed gives, on validation row `row`, counted
    from 1. `node` is a node of the graph or one output of it: `E`, `E.grid`.

    Raises:
        AtinukeError: there is no such node or row, the rows do not fit the graph, the row cannot be read, or the node
            gives nothing for each row.
    """
    run, tokenizer = _opened(subject)
    data = rows_of(run.recipe, subject)
    if data.validation is None:
        raise fail("has no validation rows", where=str(subject), fix="add `rows.validation` to the recipe")
    require(run.recipe.objective.trained(run.checked), run.recipe)
    graph = run.checked.graph
    wire = _wire(run.checked, node)
    seen = run.checked.body.nodes[wire.node]
    wires = {"value": wire} | ({MASK: Wire(wire.node, MASK)} if MASK in seen.outputs else {})
    inner = check_graph(part(graph, wires))
    given = inner.body.outputs["value"]
    rows_axis = next(iter(graph.inputs.values())).shape[0]
    if not given.shape or str(given.shape[0]) != rows_axis:
        raise fail(f"`{node}` gives no value for each row", f"it gives {given}", where=seen.node.where)

    fields = known(data.fields, data)
    rows = open_rows(data.validation)
    if not 1 <= row <= len(rows):
        raise fail(f"there is no row {row:,}", f"there are {len(rows):,}", where="--row")
    example = _example(rows[row - 1], fields, tokenizer)
    looked = replace(run, checked=inner, model=_loaded(inner, run.model))
    output = answer(looked, batch_of(looked, [example], fields))
    value = _array(output.value)
    mask = _array(output.mask) if MASK in wires else None
    classes, right = _classes(run.recipe, graph.outputs, wire, seen, fields, example)
    return View(
        node,
        seen.node.use,
        seen.settings,
        value,
        _axes(run.checked.body, wire)[1:],
        mask if mask is not None and mask.ndim == 1 and value.ndim and len(mask) == len(value) else None,
        tuple(_sense(n, fields[n], example[n], rows[row - 1]) for n in fields if n in inner.graph.inputs),
        classes,
        right,
        run.step,
        f"row {row:,}",
    )


def _opened(subject: Path) -> tuple[Trained, Tokenizer | None]:
    """A run; or a recipe, as a run that has not begun."""
    if subject.is_dir():
        run = open_model(subject)
        file = subject / TOKENIZER
        wanted = run.recipe.tokenizer
        return run, Tokenizer.load(file, wanted.end_of_text) if wanted else None
    recipe = load_recipe(subject)
    wanted, checked = recipe.tokenizer, open_beginning(recipe)
    if wanted and not wanted.file:
        fix = "train first, and look at the run"
        raise fail("its tokenizer is made by training", where=str(subject), fix=fix)
    tokenizer = Tokenizer.load(wanted.file, wanted.end_of_text) if wanted and wanted.file else None
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = build(checked)
    end = wanted.end_of_text if wanted else None
    return Trained(recipe, checked, model, "fresh weights", end), tokenizer


def _wire(checked: CheckedGraph, text: str) -> Wire:
    """The node or output of a node that is meant."""
    graph = checked.graph
    name, _, rest = text.partition(".")
    if name not in checked.body.nodes:
        where = graph.place("nodes")
        raise fail(f"the graph has no node `{name}`", where=where, fix=close(name, checked.body.nodes))
    node = checked.body.nodes[name]
    if rest and rest not in node.outputs:
        if node.instances:
            what = f"`{text}` is within a block, and only nodes of the graph itself can be looked at"
            raise fail(what, where=node.node.where, fix=f"look at `{name}`, or one of: {', '.join(graph.nodes)}")
        gives = f"it gives: {', '.join(node.outputs)}"
        raise fail(f"`{name}` has no output `{rest}`", gives, where=node.node.where, fix=close(rest, node.outputs))
    return Wire(name, rest or None)


def _loaded(inner: CheckedGraph, whole: nn.Module) -> nn.Module:
    """The part of the graph with the weights of the whole."""
    module = build(inner)
    weights = whole.state_dict()
    module.load_state_dict({name: weights[name] for name in module.state_dict()})
    return module


def _example(row: Row, fields: Mapping[str, Field], tokenizer: Tokenizer | None) -> Example:
    try:
        return {name: decode(field, row, tokenizer) for name, field in fields.items()}
    except AtinukeError as error:
        raise fail("the row cannot be used", str(error.mistakes[0]), where=str(row.where)) from None


def _array(tensor: Tensor) -> Array:
    """The value of the only row."""
    array: Array = tensor[0].cpu().numpy()
    return array


def _sense(name: str, field: Field, value: Array | None, row: Row) -> Sense:
    text = row.get(field.column)
    return Sense(name, field, value, text if field.name == "text" and isinstance(text, str) else None)


def _classes(
    recipe: Recipe,
    outputs: Mapping[str, Wire],
    wire: Wire,
    node: CheckedNode,
    fields: Mapping[str, Field],
    example: Example,
) -> tuple[tuple[str, ...] | None, str | None]:
    """The names of the classes that a node scores, and the right one, where it is what the objective scores."""
    objective = recipe.objective
    if not isinstance(objective, Classification | CTC):
        return None, None
    scored = outputs[objective.scores]
    first = next(iter(node.outputs))
    if (wire.node, wire.output or first) != (scored.node, scored.output or first):
        return None, None
    classes: tuple[str, ...] | None = getattr(fields[objective.labels], "classes", None)
    label = example[objective.labels]
    right = classes[int(label)] if classes and label is not None and label.ndim == 0 else None
    return classes, right


def _axes(body: CheckedBody, wire: Wire) -> tuple[str, ...]:
    """What the axes of a wire are called: as the component that gives it calls them, or else by their sizes."""
    if wire.node in body.inputs:
        return body.body.inputs[wire.node].shape
    node = body.nodes[wire.node]
    output = wire.output or next(iter(node.outputs))
    shown = tuple(map(dims.show, node.outputs[output].shape))
    if node.instances:
        inside = node.instances[-1]
        names = _axes(inside, inside.body.outputs[output])
        return names if len(names) == len(shown) else shown
    assert node.signature
    shape = node.signature.outputs[output].shape
    names = tuple(_name(dim) for dim in shape.dims)
    if shape.lead:
        ports = (
            port for port in node.signature.inputs.values() if port.shape.lead == shape.lead and node.feeds[port.name]
        )
        port = next(ports, None)
        lead: tuple[str, ...] = ("",) * (len(shown) - len(names))
        if port:
            fed = _axes(body, node.feeds[port.name][0])
            lead = fed[port.shape.at : len(fed) - len(port.shape.dims) + port.shape.at]
        names = (*names[: shape.at], *lead, *names[shape.at :])
    return tuple(name or size for name, size in zip(names, shown, strict=True))


def _name(dim: Dim) -> str:
    """The name or setting that an axis is; nothing where it is worked out."""
    return (dim.settings[0] if dim.settings else dim.tree.id) if isinstance(dim.tree, ast.Name) else ""
