"""A training run: from a recipe to a folder that holds everything about it.

    recipe.yaml     what was asked for, defaults written out and paths absolute
    graph.yaml      the graph that is trained
    tokenizer.json
    init.safetensors  the weights of another run that it began with, if any
    checkpoints/    see `checkpoint`
    log.jsonl, tensorboard/, loss.png

From the moment that `recipe.yaml` is there, `resume` goes on from wherever the run was, even while it made its
tokenizer. Tokens lie in `shards/` beside the folder, where other runs find them too.
"""

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import torch
from rich.console import Console

from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.measure import MetaMeter
from atinuke.compile.module import build
from atinuke.core.checked import CheckedGraph
from atinuke.core.cost import Figures, cost
from atinuke.core.dump import dump
from atinuke.core.errors import fail
from atinuke.core.names import close
from atinuke.core.registry import Registry
from atinuke.core.rewrite import rewrite
from atinuke.pipelines import checkpoint, log
from atinuke.pipelines.corpus import prepare
from atinuke.pipelines.init import adopt, copy_weights
from atinuke.pipelines.loop import Job, Loop, Outcome
from atinuke.pipelines.recipe import Recipe, dump_recipe, load_recipe
from atinuke.pipelines.sampler import Sampler, in_order
from atinuke.pipelines.shards import Tokens
from atinuke.pipelines.text import documents, find
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.pipelines.world import World, joined

RECIPE, GRAPH, TOKENIZER, SHARDS, INIT = "recipe.yaml", "graph.yaml", "tokenizer.json", "shards", "init.safetensors"
COPIES = 4  # of the weights: themselves, their gradients, and AdamW's two moments
FIXED = ("graph", "data", "tokenizer", "seed")


def start(recipe: Recipe, folder: Path, console: Console | None = None, init: Path | None = None) -> Outcome:
    """Trains by a recipe in a new folder, or in one whose run has not made a step yet; `init` is a run whose weights it
    begins with, as far as the two graphs have tensors in common.

    Raises:
        AtinukeError: the folder holds a run already; the recipe, its graph or its data are wrong; or see `Loop.run`.
    """
    with joined() as world:
        with world.first() as is_first:
            if is_first:
                _begin(recipe, folder, init)
        return _go_on(recipe, folder, world, console or Console(stderr=True))


def resume(folder: Path, overrides: Sequence[str] = (), console: Console | None = None) -> Outcome:
    """Goes on with the run in a folder, bit for bit as if it had never stopped; `steps=4000` makes it longer.

    Raises:
        AtinukeError: there is no run, an override would make it another one, its newest checkpoint is damaged; or see
            `Loop.run`.
    """
    if not (folder / RECIPE).is_file():
        raise fail("holds no run", f"there is no `{RECIPE}`", where=str(folder), fix="begin one with `atinuke train`")
    with joined() as world:
        recipe, before = load_recipe(folder / RECIPE, overrides), load_recipe(folder / RECIPE)
        wrong = [name for name in FIXED if getattr(recipe, name) != getattr(before, name)]
        if wrong:
            raise fail(f"`{wrong[0]}` of a run cannot be changed", where=str(folder), fix="begin a new run with it")
        return _go_on(recipe, folder, world, console or Console(stderr=True))


def _begin(recipe: Recipe, folder: Path, init: Path | None) -> None:
    """Writes what a run begins with, once its graph is known to hold."""
    if (folder / log.NAME).exists():
        raise fail(
            "holds a run already", where=str(folder), fix=f"go on with `atinuke resume {folder}`, or name another"
        )
    choice = recipe.graph
    checked = open_graph(
        choice.use,
        [f"{name}={value}" for name, value in choice.set.items()],
        [f"{node}={component}" for node, component in choice.swap.items()],
    )
    _trainable(checked, recipe)
    if recipe.tokenizer.vocab_size:
        _require_room(checked, recipe.tokenizer.vocab_size)
    _figures(checked, recipe)
    find(recipe.data.train)
    find(recipe.data.validation)
    if recipe.tokenizer.file:
        Tokenizer.load(recipe.tokenizer.file, recipe.tokenizer.end_of_text)
    if init:
        _require_same_tokens(recipe, init)
    _write(folder / GRAPH, dump(checked.graph))
    for left in (TOKENIZER, INIT):
        (folder / left).unlink(missing_ok=True)
    if init:
        copy_weights(init, folder / INIT)
    _write(folder / RECIPE, dump_recipe(recipe))


def _go_on(recipe: Recipe, folder: Path, world: World, console: Console) -> Outcome:
    checked = open_graph(str(folder / GRAPH))
    figures = _figures(checked, recipe)
    _require_memory(figures, world)
    with world.first() as is_first:
        tokenizer = _tokenizer(recipe, folder / TOKENIZER, console)
        _require_room(checked, tokenizer.vocab_size)
        train, validation = _tokens(recipe, tokenizer, folder.parent / SHARDS, console if is_first else None)
    sizes = {"batch": recipe.batch, "context": recipe.data.context}
    torch.manual_seed(recipe.seed)
    module = build(_trainable(checked, recipe))
    if (folder / INIT).exists() and not checkpoint.saved(folder / "checkpoints"):
        adopted = adopt(module, folder / INIT)
        for line in adopted.lines() if is_first else ():
            console.print(line, highlight=False)
    job = Job(
        module,
        Sampler(train, **sizes, seed=recipe.seed, rank=world.rank, world_size=world.size),
        (lambda: in_order(validation, **sizes)) if validation else None,
        {"loss": 1.0, **recipe.objective.losses},
        flops_per_unit=figures.training_flops / (recipe.batch * recipe.data.context),
        bytes_per_token=validation.bytes / len(validation) if validation else None,
    )
    loop = Loop(recipe, folder, job, world, console)
    if is_first:
        _write(folder / RECIPE, dump_recipe(recipe))  # with what `resume` was told to change
    return loop.run()


def _trainable(checked: CheckedGraph, recipe: Recipe) -> CheckedGraph:
    """The graph with its loss in place of its logits."""
    registry = Registry()
    trained = check_graph(rewrite(checked.graph, ["vocabulary_loss"], registry), registry)
    needed = [name for name, declared in checked.graph.inputs.items() if not declared.optional]
    if needed != ["input_ids"]:
        raise fail(
            "text alone cannot feed this graph",
            f"its inputs: {', '.join(needed)}",
            where=checked.graph.place("inputs"),
            fix="train a graph whose only required input is `input_ids`",
        )
    known = [name for name in trained.graph.outputs if name != "loss"]
    for name in recipe.objective.losses:
        if name not in known:
            raise fail(
                f"the graph has no output `{name}` to add to the loss", where="objective.losses", fix=close(name, known)
            )
    return trained


def _figures(checked: CheckedGraph, recipe: Recipe) -> Figures:
    """What one micro-batch costs; raises where it is outside the ranges of the graph's axes."""
    names = checked.graph.inputs["input_ids"].shape
    sizes = dict(zip(names, (recipe.batch, recipe.data.context), strict=True))
    return cost(checked, MetaMeter()).at(**{name: sizes[name] for name in names if name in checked.graph.axes})


def _require_memory(figures: Figures, world: World) -> None:
    """Refuses what cannot fit; what lies between the layers comes on top, and is not counted here."""
    needed, free = COPIES * figures.weight_bytes["float32"], world.free_memory()
    if needed > free:
        raise fail(
            f"training {figures.parameters:,} parameters does not fit into memory",
            f"weights, gradients and optimiser need {needed / 1e9:,.1f} GB; {free / 1e9:,.1f} GB are free",
            fix="make the graph smaller",
        )


def _tokenizer(recipe: Recipe, path: Path, console: Console) -> Tokenizer:
    """The run's own; the first time, a copy of the one that the recipe names, or a newly trained one."""
    wanted, data = recipe.tokenizer, recipe.data
    if path.exists():
        return Tokenizer.load(path, wanted.end_of_text)
    if wanted.file:
        tokenizer = Tokenizer.load(wanted.file, wanted.end_of_text)
    else:
        assert wanted.vocab_size
        texts = chain.from_iterable(documents(file, data.field, data.split) for file in find(data.train))
        with console.status(f"training a tokenizer of {wanted.vocab_size:,} tokens"):
            tokenizer = Tokenizer.train(texts, wanted.vocab_size, wanted.end_of_text)
    tokenizer.save(path)
    return tokenizer


def _require_same_tokens(recipe: Recipe, init: Path) -> None:
    """Refuses weights whose tokens are not those of the recipe: an embedding would be of other words."""
    wanted, theirs = recipe.tokenizer, init / TOKENIZER
    if theirs.exists():
        same = wanted.file and Path(wanted.file).is_file() and Path(wanted.file).read_bytes() == theirs.read_bytes()
        if not same:
            fix = f"write into the recipe: tokenizer: {{file: {theirs}}}"
            raise fail("the weights to begin with belong to another tokenizer", where=str(init), fix=fix)


def _require_room(checked: CheckedGraph, tokens: int) -> None:
    graph = checked.graph
    size = checked.body.nodes[graph.outputs["logits"].node].settings["vocab_size"]
    if tokens > size:
        raise fail(
            f"the graph has room for {size:,} tokens, but the tokenizer has {tokens:,}",
            where=graph.place("outputs"),
            fix=f"set the graph's vocab_size to at least {tokens}",
        )


def _tokens(recipe: Recipe, tokenizer: Tokenizer, cache: Path, console: Console | None) -> tuple[Tokens, Tokens]:
    """Tokens to train on, and tokens (maybe none) to validate on."""
    data = recipe.data

    def read(sources: Sequence[str], fraction: float) -> tuple[Tokens, Tokens]:
        found = prepare(
            sources, tokenizer, cache, validation=fraction, field=data.field, split=data.split, console=console
        )
        return found.train, found.validation

    train, validation = read(data.train, data.validation_fraction)
    return train, read(data.validation, 0.0)[0] if data.validation else validation


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise fail(f"cannot be written: {error.strerror or error}", where=str(path)) from None
