"""A training run: from a recipe to a folder that holds everything about it.

    recipe.yaml     what was asked for, defaults and classes written out and paths absolute
    graph.yaml      the graph that is trained
    tokenizer.json
    init.safetensors  the weights of another run or a pretrained model that it began with, if any
    base.json       or where they lie, if the run adapts them (see `base`)
    checkpoints/    see `checkpoint`
    log.jsonl, tensorboard/, loss.png

From the moment that `recipe.yaml` is there, `resume` goes on from wherever the run was, even while it made its
tokenizer. Tokens lie in `shards/` beside the folder, where other runs find them too.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.core.dump import dump
from atinuke.core.errors import fail
from atinuke.core.files import replacing
from atinuke.pipelines import base, checkpoint, feed_rows, feed_task, feed_text, log
from atinuke.pipelines.beginning import open_beginning, require_found
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.init import adopt, copy_weights
from atinuke.pipelines.layers import heights
from atinuke.pipelines.loop import Job, Loop, Outcome
from atinuke.pipelines.recipe import Recipe, dump_recipe, load_recipe
from atinuke.pipelines.tokenizer_files import read_tokenizer
from atinuke.pipelines.world import World, joined

RECIPE, GRAPH, TOKENIZER, SHARDS, INIT = "recipe.yaml", "graph.yaml", "tokenizer.json", "shards", "init.safetensors"
FIXED = ("graph", "pretrained", "data", "rows", "task", "tokenizer", "objective", "adapt", "seed")


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
        return _go_on(load_recipe(folder / RECIPE), folder, world, console or Console(stderr=True))


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
        wrong += ["optimiser.name"] if recipe.optimiser.name != before.optimiser.name else []
        if wrong:
            raise fail(f"`{wrong[0]}` of a run cannot be changed", where=str(folder), fix="begin a new run with it")
        return _go_on(recipe, folder, world, console or Console(stderr=True))


def _begin(recipe: Recipe, folder: Path, init: Path | None) -> None:
    """Writes what a run begins with, once its graph is known to hold."""
    if (folder / log.NAME).exists():
        raise fail(
            "holds a run already", where=str(folder), fix=f"go on with `atinuke resume {folder}`, or name another"
        )
    if init and recipe.pretrained:
        raise fail("`pretrained` and `--init` are two beginnings", where=str(init), fix="leave one out")
    if recipe.adapt and not (init or recipe.pretrained):
        fix = "name a model folder by `pretrained`, or a run by --init"
        raise fail("there is nothing to adapt", where="adapt", fix=fix)
    checked = open_beginning(recipe)
    trained = recipe.objective.trained(checked)
    tokenizer = None
    if recipe.task:
        file = feed_task.tokenizer_of(recipe)
        tokenizer = read_tokenizer(file)
        feed_task.require(trained, recipe, Texts(tokenizer, file))
    else:
        feed_text.require(checked, trained, recipe) if recipe.data else feed_rows.require(trained, recipe)
    beginning = init or (Path(recipe.pretrained) if recipe.pretrained else None)
    if beginning:
        _require_same_tokens(recipe, beginning)
    _write(folder / GRAPH, dump(checked.graph))
    for left in (TOKENIZER, INIT, base.NAME):
        (folder / left).unlink(missing_ok=True)
    if beginning and recipe.adapt:
        base.write_base(folder, base.newest_weights(beginning))
    elif beginning:
        copy_weights(beginning, folder / INIT)
    if tokenizer:
        _write(folder / TOKENIZER, tokenizer)
    _write(folder / RECIPE, dump_recipe(_with_classes(recipe)))


def _with_classes(recipe: Recipe) -> Recipe:
    """The recipe with the classes of its training rows written out: their numbers must stay, whatever becomes of the
    rows."""
    if recipe.rows is None:
        return recipe
    fields = feed_rows.known(recipe.rows.fields, recipe.rows)
    return recipe.model_copy(update={"rows": recipe.rows.model_copy(update={"fields": fields})})


def _go_on(recipe: Recipe, folder: Path, world: World, console: Console) -> Outcome:
    checked = open_graph(str(folder / GRAPH))
    trained = recipe.objective.trained(checked)
    tokenizer = folder / TOKENIZER
    if recipe.task:
        feed = feed_task.feed(trained, recipe, tokenizer, world, console)
    elif recipe.data:
        feed = feed_text.feed(checked, trained, recipe, tokenizer, folder.parent / SHARDS, world, console)
    else:
        feed = feed_rows.feed(trained, recipe, tokenizer, world, console)
    torch.manual_seed(recipe.seed)
    module = build(trained)
    weights_of_base, frozen = base.base_of(folder) if recipe.adapt else None, frozenset[str]()
    if weights_of_base or ((folder / INIT).exists() and not checkpoint.saved(folder / "checkpoints")):
        adopted = adopt(module, weights_of_base or folder / INIT)
        if recipe.pretrained:
            require_found(adopted.new, recipe.pretrained)
        lines = adopted.lines()
        if recipe.adapt:
            frozen = recipe.adapt.freeze_rest(module, adopted.new)
            lines.append(_shares(module))
        for line in lines if world.rank == 0 else ():
            console.print(line, highlight=False)
    objective = recipe.objective
    weights, figures = objective.weights(trained), objective.figures(trained)
    job = Job(
        module,
        feed,
        weights,
        figures,
        objective.counted(),
        objective.has_perplexity,
        weights_of_base,
        frozen,
        heights(trained, module),
    )
    loop = Loop(recipe, folder, job, world, console)
    if world.rank == 0:
        _write(folder / RECIPE, dump_recipe(recipe))  # with what `resume` was told to change
    return loop.run()


def _require_same_tokens(recipe: Recipe, beginning: Path) -> None:
    """Refuses weights whose tokens are not those of the recipe: an embedding would be of other words."""
    theirs, mine = beginning / TOKENIZER, recipe.tokenizer
    if mine and theirs.exists() and not (mine.file and Path(mine.file).read_bytes() == theirs.read_bytes()):
        fix = f"write into the recipe: tokenizer: {{file: {theirs}}}"
        raise fail("the weights to begin with belong to another tokenizer", where=str(beginning), fix=fix)


def _shares(module: nn.Module) -> str:
    """How much of a model is trained."""
    whole = sum(parameter.numel() for parameter in module.parameters())
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return f"training {trained:,} of {whole:,} parameters, {100 * trained / whole:.2g} %"


def _write(path: Path, text: str) -> None:
    with replacing(path) as draft:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
