"""A trained run, opened for use: its graph, its newest weights and its tokenizer."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.pipelines import checkpoint
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.pipelines.train import GRAPH, RECIPE, TOKENIZER


@dataclass(frozen=True)
class Run:
    """`context` is the longest text that the graph reads, in tokens; `step` is that of the weights."""

    checked: CheckedGraph
    model: nn.Module
    tokenizer: Tokenizer
    context: int
    step: str


def open_run(folder: Path) -> Run:
    """The run in a folder, with the weights of its newest checkpoint, ready for evaluation.

    Raises:
        AtinukeError: the folder holds no run, the run has no checkpoint yet, or a file of it is damaged.
    """
    if not (folder / RECIPE).is_file():
        raise fail("holds no run", f"there is no `{RECIPE}`", where=str(folder), fix="begin one with `atinuke train`")
    found = checkpoint.saved(folder / "checkpoints")
    if not found:
        raise fail("has no checkpoint yet", where=str(folder), fix=f"go on with `atinuke resume {folder}`")
    recipe = load_recipe(folder / RECIPE)
    checked = open_graph(str(folder / GRAPH))
    tokenizer = Tokenizer.load(folder / TOKENIZER, recipe.tokenizer.end_of_text)
    checkpoint.verify(found[-1])
    model = build(checked).eval()
    checkpoint.load_weights(model, found[-1] / checkpoint.WEIGHTS)
    axis = checked.graph.inputs["input_ids"].shape[1]
    context = checked.graph.axes[axis].high if axis in checked.graph.axes else int(checked.dims[axis])
    return Run(checked, model, tokenizer, context, found[-1].name)
