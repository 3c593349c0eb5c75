"""Rows of files and labels as batches, for models of any inputs."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.fit import Type
from atinuke.core.names import close
from atinuke.core.rewrite import HEAD_LOSS
from atinuke.pipelines.batches import Shuffled, in_order
from atinuke.pipelines.chat import contents
from atinuke.pipelines.examples import scan
from atinuke.pipelines.feed_tokenizer import run_tokenizer
from atinuke.pipelines.fields import (
    Audio,
    Chat,
    Class,
    Classes,
    Field,
    Image,
    Number,
    Text,
    Tokens,
    columns,
    mask_name,
    segments_name,
    with_classes,
    with_templates,
)
from atinuke.pipelines.loop import Feed, predicted_tokens
from atinuke.pipelines.objective import Given, Making
from atinuke.pipelines.objective_text import TEXT
from atinuke.pipelines.recipe import Recipe, RowsData
from atinuke.pipelines.rows import Rows, open_rows
from atinuke.pipelines.sampler import Batch
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.pipelines.world import World

KINDS: dict[type[Field], tuple[str, int]] = {
    Audio: ("float", 2),
    Image: ("uint8", 4),
    Text: ("int64", 2),
    Chat: ("int64", 2),
    Class: ("int64", 1),
    Classes: ("int64", 2),
    Number: ("float", 1),
}


def require(trained: CheckedGraph, recipe: Recipe) -> None:
    """What can be known before anything is read.

    Raises:
        AtinukeError: the inputs of the training graph are not those that the fields give, texts may be longer than it
            reads, the objective cannot do with optional fields, or a source is missing.
    """
    rows = _section(recipe)
    making = _making(trained, recipe)
    _require_whole(recipe)
    _require_inputs(trained, recipe.objective.gives(dict(_given(rows.fields)), making))
    _require_lengths(trained, recipe)
    open_rows(rows.train)
    if rows.validation:
        open_rows(rows.validation)
    if recipe.tokenizer and recipe.tokenizer.file:
        Tokenizer.load(recipe.tokenizer.file, recipe.tokenizer.end_of_text)


def feed(trained: CheckedGraph, recipe: Recipe, tokenizer_file: Path, world: World, console: Console) -> Feed:
    """Looks at every row once.

    Raises:
        AtinukeError: see `require`; or a row is bad, or does not fit the graph.
    """
    data = _section(recipe)
    rows = open_rows(data.train)
    tokenizer = None
    if recipe.tokenizer:
        texts, special = partial(_texts, recipe, rows), recipe.objective.special_tokens
        with world.first():
            tokenizer = run_tokenizer(recipe.tokenizer, special, texts, tokenizer_file, console)
    fields = known(data.fields, data)
    _require_classes(trained, fields)
    _require_room(trained, fields, recipe.objective.vocabulary(tokenizer))
    quiet = console if world.rank == 0 else Console(quiet=True)
    train = scan(rows, fields, tokenizer, data.bad, quiet)
    validation = scan(open_rows(data.validation), fields, tokenizer, data.bad, quiet) if data.validation else None
    objective, making = recipe.objective, replace(_making(trained, recipe), tokenizer=tokenizer)
    make, make_validation = (
        partial(objective.batch, making=replace(making, training=training)) for training in (True, False)
    )
    return Feed(
        Shuffled(train, recipe.batch, recipe.accumulate, recipe.seed, world.rank, world.size, make=make),
        (lambda: in_order(validation, recipe.batch, make=make_validation)) if validation is not None else None,
        partial(_count, trained=trained, unit=objective.unit),
        objective.unit,
    )


def known(fields: dict[str, Field], trained: RowsData) -> dict[str, Field]:
    """The fields with their chat templates, and with the classes of the training rows: these are read only where a
    field does not list its own."""
    fields = with_templates(fields)
    if any(getattr(field, "classes", ()) is None for field in fields.values()):
        return with_classes(fields, open_rows(trained.train))
    return fields


def _making(trained: CheckedGraph, recipe: Recipe) -> Making:
    fields = _section(recipe).fields
    masks = {name: mask_name(name, field) for name, field in fields.items() if isinstance(field, Tokens)}
    return Making(frozenset(trained.graph.inputs), masks, seed=recipe.seed)


def require_sizes(checked: CheckedGraph, batch: Batch) -> None:
    """Raises AtinukeError for a batch of sizes that the graph was not proved for; any number of rows will do."""
    for name, tensor in batch.items():
        for size, number in zip(checked.body.inputs[name].shape, tensor.shape, strict=True):
            axis = checked.graph.axes.get(str(size))
            if axis is not None and str(size) != "batch" and not axis.low <= number <= axis.high:
                raise fail(
                    f"a batch has {number:,} {size}, but the graph reads {axis}",
                    where=f"rows.fields.{name}",
                    fix=f"widen the axis `{size}` in the graph, or change `length`, `longest` or `multiple`",
                )


def _count(batch: Batch, trained: CheckedGraph, unit: str) -> int:
    """The rows or predicted tokens of a batch, once its sizes are known to hold."""
    require_sizes(trained, batch)
    return predicted_tokens(batch) if unit == "tokens" else len(next(iter(batch.values())))


def _section(recipe: Recipe) -> RowsData:
    assert recipe.rows
    return recipe.rows


def _given(fields: dict[str, Field]) -> Iterator[tuple[str, tuple[str, int]]]:
    """Each tensor that fields give: its name, its dtype in the graph language, and the number of its axes."""
    for name, field in fields.items():
        yield name, KINDS[type(field)]
        if mask := mask_name(name, field):
            yield mask, ("bool", 1 if isinstance(field, Image) else 2)
        if segments := segments_name(field):
            yield segments, ("int64", 2)


def _require_inputs(trained: CheckedGraph, given: Given) -> None:
    """Every input of the graph is given, and everything that is given has an input that takes it."""
    inputs = trained.body.inputs
    where = trained.graph.place("inputs")
    for name, declared in trained.graph.inputs.items():
        if name not in given and not declared.optional:
            fix = close(name, given) or f"add a field `{name}` to the recipe's rows"
            raise fail(f"no field of the rows feeds the input `{name}: {declared}`", where=where, fix=fix)
    for name, (dtype, axes) in given.items():
        if name not in inputs:
            what = f"the graph has no input `{name}`, which the rows give as {dtype} of {axes} axes"
            raise fail(what, f"its inputs: {', '.join(inputs)}", where=where, fix=close(name, inputs))
        if not _takes(inputs[name], dtype, axes):
            got = f"the rows give {dtype} of {axes} axes"
            raise fail(f"input `{name}: {inputs[name]}` does not fit its field", got, where=where)


def _require_whole(recipe: Recipe) -> None:
    for name, field in _section(recipe).fields.items():
        if recipe.objective.needs_whole_rows and not isinstance(field, Number) and field.optional:
            what = f"objective {recipe.objective.name} needs rows that have everything, but `{name}` is optional"
            raise fail(what, where="rows.fields", fix="take `optional` away, and leave out such rows with `bad: skip`")


def _require_lengths(trained: CheckedGraph, recipe: Recipe) -> None:
    """The longest text that a field lets through is one that the graph reads."""
    for name, field in _section(recipe).fields.items():
        if not isinstance(field, Tokens) or name not in trained.body.inputs:
            continue
        longest = -(-field.length // field.multiple) * field.multiple + (recipe.objective.begins and name == TEXT)
        axis = trained.graph.axes.get(str(trained.body.inputs[name].shape[1]))
        if axis is not None and longest > axis.high:
            what = f"`{name}` may have {longest:,} tokens, but the graph reads at most {axis.high:,}"
            raise fail(what, where="rows.fields", fix="set `length` lower, or widen the axis in the graph")


def _takes(given: Type, dtype: str, axes: int) -> bool:
    return (given.dtype == dtype or (dtype == "float" and given.dtype == "float32")) and len(given.shape) == axes


def _require_classes(trained: CheckedGraph, fields: dict[str, Field]) -> None:
    """As many classes as the graph has scores for, and one more where a blank is among them: the last, so that the
    numbers of the others stay. A label beyond them would be an index out of range."""
    for name, node in trained.body.nodes.items():
        classes, blank = node.settings.get("classes"), node.settings.get("blank")
        for field in (fields.get(wire.node) for wire in node.feeds.get("labels", ())):
            if not isinstance(field, Class | Classes) or not field.classes:
                continue
            count, where = len(field.classes), trained.graph.where
            found = f"{count} classes: {', '.join(field.classes[:10])}"
            if classes != count + (blank is not None):
                what = f"{name} tells {classes} classes apart" + ("" if blank is None else ", one of them the blank")
                raise fail(f"{what}, but the rows have {found}", where=where)
            if blank not in (None, count):
                what = f"{name} has the blank {blank}, which is the number of a class"
                raise fail(what, f"the rows have {found}", where=where, fix=f"let the blank be the last, {count}")


def _require_room(trained: CheckedGraph, fields: dict[str, Field], tokens: int) -> None:
    """A vocabulary for all tokens, where texts come in and where the objective lets them be predicted."""
    texts = {name for name, field in fields.items() if isinstance(field, Tokens)}
    for name, checked in trained.body.nodes.items():
        size = checked.settings.get("vocab_size")
        reads = any(wire.node in texts for wires in checked.feeds.values() for wire in wires)
        says = checked.node.use == HEAD_LOSS and all(wire.node not in fields for wire in checked.feeds["labels"])
        if size is not None and size < tokens and (reads or says):
            what = f"{name} has room for {size:,} tokens, but {tokens:,} are needed"
            raise fail(what, where=trained.graph.where, fix=f"set the graph's vocab_size to at least {tokens}")


def _texts(recipe: Recipe, rows: Rows) -> Iterator[str]:
    """The texts of the rows, for a tokenizer to be trained on."""
    texts = [field for field in _section(recipe).fields.values() if isinstance(field, Tokens)]
    names = [name for field in texts for name in columns(field)]
    if not names:
        raise fail(
            "there is no text to train a tokenizer on", where="tokenizer", fix="add a text field, or leave it out"
        )
    values = (row.get(name) for row in map(rows.__getitem__, range(len(rows))) for name in names)
    found = (part for value in values for part in (contents(value) if isinstance(value, list) else [value]))
    return (text for text in found if isinstance(text, str))
