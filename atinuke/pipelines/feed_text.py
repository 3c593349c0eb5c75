"""Texts as one long stream of tokens, for models that go on with them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from rich.console import Console

from atinuke.compile.measure import MetaMeter
from atinuke.core.checked import CheckedGraph
from atinuke.core.cost import Figures, cost
from atinuke.core.errors import fail
from atinuke.pipelines.corpus import prepare
from atinuke.pipelines.feed_tokenizer import run_tokenizer
from atinuke.pipelines.loop import Feed, predicted_tokens
from atinuke.pipelines.objective import Making
from atinuke.pipelines.recipe import Data, Recipe
from atinuke.pipelines.recipe import Tokenizer as TokenizerChoice
from atinuke.pipelines.sampler import Batch, Sampler, in_order
from atinuke.pipelines.shards import Tokens
from atinuke.pipelines.text import documents, find
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.pipelines.world import World

COPIES = 4  # of the weights: themselves, their gradients, and AdamW's two moments


def require(checked: CheckedGraph, trained: CheckedGraph, recipe: Recipe) -> None:
    """What can be known before anything is read.

    Raises:
        AtinukeError: the graph cannot read texts of the recipe's sizes, or a file is missing.
    """
    data, wanted = _sections(recipe)
    require_text(checked, given=recipe.objective.reads_of_windows)
    if wanted.vocab_size:
        _require_room(checked, wanted.vocab_size)
    elif wanted.file:
        tokenizer = Tokenizer.load(wanted.file, wanted.end_of_text)
        _require_room(checked, recipe.objective.vocabulary(tokenizer))
    _figures(checked, recipe)
    find(data.train)
    find(data.validation)


def feed(
    checked: CheckedGraph,
    trained: CheckedGraph,
    recipe: Recipe,
    tokenizer_file: Path,
    cache: Path,
    world: World,
    console: Console,
) -> Feed:
    """Trains the tokenizer and encodes the texts where that has not been done yet.

    Raises:
        AtinukeError: see `require`; or the model does not fit into memory, or a text cannot be read.
    """
    data, wanted = _sections(recipe)
    objective = recipe.objective
    figures = _figures(checked, recipe)
    _require_memory(figures, recipe, world)
    with world.first() as is_first:
        tokenizer = run_tokenizer(wanted, objective.special_tokens, partial(_texts, data), tokenizer_file, console)
        _require_room(checked, objective.vocabulary(tokenizer))
        train, validation = _tokens(data, tokenizer, cache, console if is_first else None)
    sizes = {"batch": recipe.batch, "context": data.context}
    making = Making(frozenset(trained.graph.inputs), {"input_ids": "attention_mask"}, tokenizer, recipe.seed)
    make, make_validation = (
        partial(objective.windows, making=replace(making, training=training)) for training in (True, False)
    )
    return Feed(
        Sampler(train, **sizes, seed=recipe.seed, rank=world.rank, world_size=world.size, make=make),
        (lambda: in_order(validation, **sizes, make=make_validation)) if validation else None,
        predicted_tokens if objective.unit == "tokens" else _read_tokens,
        flops_per_unit=figures.training_flops / (recipe.batch * data.context),
        bytes_per_token=validation.bytes / len(validation) if validation and objective.has_perplexity else None,
    )


def _read_tokens(batch: Batch) -> int:
    return batch["input_ids"].numel()


def require_text(checked: CheckedGraph, given: Sequence[str] = ("input_ids",)) -> None:
    """Raises AtinukeError for a graph that reads anything but `input_ids[batch, sequence]` and what else is `given`, or
    gives no `logits`."""
    graph = checked.graph
    needed = [name for name, declared in graph.inputs.items() if not declared.optional]
    reads = "input_ids" in needed and set(needed) <= set(given) and len(graph.inputs["input_ids"].shape) == 2
    if not reads or "logits" not in graph.outputs:
        may = f"and maybe {', '.join(given[1:])}" if len(given) > 1 else "alone"
        raise fail(
            f"graph `{graph.name}` does not go on with a text",
            f"it reads {', '.join(f'{name}: {graph.inputs[name]}' for name in needed)}",
            f"it gives {', '.join(graph.outputs)}",
            where=graph.place("inputs"),
            fix=f"use a graph that reads int64 input_ids[batch, sequence] {may}, and gives logits",
        )


def _sections(recipe: Recipe) -> tuple[Data, TokenizerChoice]:
    assert recipe.data
    assert recipe.tokenizer
    return recipe.data, recipe.tokenizer


def _figures(checked: CheckedGraph, recipe: Recipe) -> Figures:
    """What one micro-batch costs; raises where the graph cannot read it."""
    given = checked.body.inputs["input_ids"].shape
    wanted = {"batch": recipe.batch, "data.context": _sections(recipe)[0].context}
    sizes: dict[str, int] = {}
    for (name, number), size in zip(wanted.items(), given, strict=True):
        if size.is_Symbol:
            sizes[str(size)] = number
        elif size != number:
            fix = f"set `{name}` in the recipe to it, or make it an axis of the graph"
            raise fail(
                f"the graph reads {size}, but `{name}` is {number}", where=checked.graph.place("inputs"), fix=fix
            )
    return cost(checked, MetaMeter()).at(**sizes)


def _require_memory(figures: Figures, recipe: Recipe, world: World) -> None:
    """Refuses what cannot fit; what lies between the layers comes on top, and is not counted here."""
    rows = 2 * 8 * recipe.batch * recipe.accumulate * _sections(recipe)[0].context  # tokens and labels of one step
    needed, free = COPIES * figures.weight_bytes["float32"] + rows, world.free_memory()
    if needed > free:
        raise fail(
            f"training {figures.parameters:,} parameters does not fit into memory",
            f"weights, gradients, optimiser and batches need {needed / 1e9:,.1f} GB; {free / 1e9:,.1f} GB are free",
            fix="make the graph smaller, or `batch` and `accumulate`",
        )


def _texts(data: Data) -> Iterator[str]:
    return chain.from_iterable(documents(file, data.field, data.split) for file in find(data.train))


def _require_room(checked: CheckedGraph, tokens: int) -> None:
    graph = checked.graph
    size = checked.body.nodes[graph.outputs["logits"].node].settings["vocab_size"]
    if tokens > size:
        raise fail(
            f"the graph has room for {size:,} tokens, but the tokenizer has {tokens:,}",
            where=graph.place("outputs"),
            fix=f"set the graph's vocab_size to at least {tokens}",
        )


def _tokens(data: Data, tokenizer: Tokenizer, cache: Path, console: Console | None) -> tuple[Tokens, Tokens]:
    """Tokens to train on, and tokens (maybe none) to validate on."""

    def read(sources: Sequence[str], fraction: float) -> tuple[Tokens, Tokens]:
        found = prepare(
            sources, tokenizer, cache, validation=fraction, field=data.field, split=data.split, console=console
        )
        return found.train, found.validation

    train, validation = read(data.train, data.validation_fraction)
    return train, read(data.validation, 0.0)[0] if data.validation else validation
