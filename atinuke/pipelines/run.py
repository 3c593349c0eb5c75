"""A trained run or a pretrained model, opened for use: its graph, its newest weights and its tokenizer."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.lora import merge
from atinuke.compile.module import build
from atinuke.compile.step import can_step, plan_steps
from atinuke.core import dims
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.pipelines import checkpoint
from atinuke.pipelines.base import base_of
from atinuke.pipelines.feed_text import require_text
from atinuke.pipelines.fields import Chat
from atinuke.pipelines.part import part
from atinuke.pipelines.pretrained.folder import is_model_folder
from atinuke.pipelines.pretrained.opening import from_pretrained
from atinuke.pipelines.pretrained.writing import (
    begin_of_text,
    end_of_text,
    ends_of_text,
    muted_tokens,
    prefix_of_text,
)
from atinuke.pipelines.recipe import Recipe, load_recipe
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.pipelines.train import GRAPH, RECIPE, TOKENIZER
from atinuke.runtime.sampling import Muted


@dataclass(frozen=True)
class Trained:
    """A trained model with its graph; `step` is that of its weights. A run has a recipe, a pretrained model has none.
    `end_of_text` is the token that ends its texts, where it has a tokenizer."""

    made: Recipe | None
    checked: CheckedGraph
    model: nn.Module
    step: str
    end_of_text: str | None

    @property
    def recipe(self) -> Recipe:
        """The recipe of a run; raises AtinukeError for a pretrained model."""
        if self.made is None:
            raise fail("is a pretrained model, which has no recipe", fix="name the folder of a run")
        return self.made


@dataclass(frozen=True)
class Run(Trained):
    """A model that writes texts; `context` is the longest that the graph reads, in tokens, and `given` are the inputs
    that the text depends on, such as the source of an encoder-decoder. Its texts have the tokens `begin` in front;
    where there are none, a text whose likelihood is asked stands behind the token `prefix`. What is `muted` it does not
    write."""

    tokenizer: Tokenizer
    context: int
    given: tuple[str, ...]
    begin: tuple[int, ...]
    prefix: int
    muted: Muted


def open_model(folder: Path) -> Trained:
    """The model of a run with the weights of its newest checkpoint, or that of a model folder, ready for evaluation.

    Raises:
        AtinukeError: the folder holds neither, the run has no checkpoint yet, or a file of it is damaged.
    """
    if is_model_folder(folder):
        pretrained = from_pretrained(folder)
        return Trained(None, pretrained.checked, pretrained.model, pretrained.architecture, end_of_text(folder))
    if not (folder / RECIPE).is_file():
        raise fail("holds no run", f"there is no `{RECIPE}`", where=str(folder), fix="begin one with `atinuke train`")
    newest = newest_checkpoint(folder)
    recipe = load_recipe(folder / RECIPE)
    checked = open_graph(str(folder / GRAPH))
    checkpoint.verify(newest)
    trained = recipe.objective.trained(checked)
    checked = _trained_part(checked, trained)
    model = build(checked).eval()
    added = trained.graph.nodes.keys() - checked.graph.nodes.keys()
    checkpoint.load_weights(model, newest / checkpoint.WEIGHTS, added, base_of(folder))
    end = recipe.tokenizer.end_of_text if recipe.tokenizer else None
    return Trained(recipe, checked, model, newest.name, end)


def newest_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run.

    Raises:
        AtinukeError: it has none yet.
    """
    found = checkpoint.saved(run / "checkpoints")
    if not found:
        raise fail("has no checkpoint yet", where=str(run), fix=f"go on with `atinuke resume {run}`")
    return found[-1]


def _trained_part(checked: CheckedGraph, trained: CheckedGraph) -> CheckedGraph:
    """The graph without the outputs that training left out: what only they depend on has no weights."""
    graph = checked.graph
    there = {
        name: wire
        for name, wire in graph.outputs.items()
        if part(graph, {name: wire}).nodes.keys() <= trained.graph.nodes.keys()
    }
    return checked if len(there) == len(graph.outputs) else check_graph(part(graph, there))


def open_run(folder: Path) -> Run:
    """The run in a folder that writes texts.

    Raises:
        AtinukeError: see `open_model`; or it does not write texts, or its tokenizer is damaged.
    """
    found = open_model(folder)
    merge(found.model)  # one product in place of three
    return writer(found, folder)


def writer(found: Trained, folder: Path) -> Run:
    """The trained model of a folder as one that writes texts; errors as for `open_run`."""
    given = _given(found.checked)
    if found.end_of_text is None:
        raise fail("has no tokenizer", where=str(folder), fix="use a run that was trained on texts")
    ends = ends_of_text(folder) if found.made is None else ()
    tokenizer = Tokenizer.load(folder / TOKENIZER, found.end_of_text, ends)
    prefix, muted = tokenizer.end_of_text, Muted()
    length = found.checked.body.inputs["input_ids"].shape[1]
    context = int(length.subs({dims.axis(name): axis.high for name, axis in found.checked.graph.axes.items()}))
    if found.made is None:
        begin, muted = begin_of_text(folder), Muted(*muted_tokens(folder))
        if (told := prefix_of_text(folder, tokenizer.special)) is not None:
            prefix = told
        _require_room(found.checked, {*begin, prefix}, folder)
    else:
        rows = found.made.rows
        talks = rows is not None and any(isinstance(field, Chat) for field in rows.fields.values())
        begin = (tokenizer.end_of_text,) if rows is not None and not talks else ()
    return Run(
        **vars(found), tokenizer=tokenizer, context=context, given=given, begin=begin, prefix=prefix, muted=muted
    )


def _require_room(checked: CheckedGraph, tokens: set[int], folder: Path) -> None:
    """Refuses a text that would begin with what the model has no embedding for."""
    graph = checked.graph
    size = checked.body.type_of(graph.outputs["logits"]).shape[-1]
    beyond = [token for token in tokens if not 0 <= token < size]
    if beyond:
        raise fail(
            f"a text would begin with token {beyond[0]}",
            f"the model has the tokens 0 to {size - 1}",
            where=str(folder),
            fix="correct the tokenizer's post-processor, or `decoder_start_token_id` of its generation_config.json",
        )


def _given(checked: CheckedGraph) -> tuple[str, ...]:
    """What the graph reads beside the text that it writes; raises AtinukeError where it writes none."""
    plan = plan_steps(checked) if can_step(checked) else None
    if plan and plan.given and plan.inputs == ("input_ids",) and "logits" in plan.outputs:
        return plan.given
    require_text(checked)
    return ()
