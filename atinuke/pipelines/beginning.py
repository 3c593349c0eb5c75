"""What a run begins with: its graph, and the weights of a pretrained model."""

from collections.abc import Iterable
from pathlib import Path

from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.module import build
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.pipelines.pretrained.folder import open_folder
from atinuke.pipelines.recipe import Recipe


def open_beginning(recipe: Recipe) -> CheckedGraph:
    """The graph of a recipe, or of its pretrained model, with the head of its task and what adapts it.

    Raises:
        AtinukeError: the graph is wrong, the folder is no model folder, or the graph does not give what the task needs.
    """
    choice = recipe.graph
    if choice is None:
        assert recipe.pretrained
        checked = open_folder(Path(recipe.pretrained)).checked
    else:
        sets, swaps = ([f"{key}={value}" for key, value in part.items()] for part in (choice.set, choice.swap))
        checked = open_graph(choice.use, sets, swaps)
    if recipe.task:
        checked = check_graph(recipe.task.head(checked))
    return recipe.adapt.rewritten(checked) if recipe.adapt else checked


def require_found(new: Iterable[str], folder: str) -> None:
    """Raises AtinukeError where a tensor begins anew that the graph of the pretrained model has."""
    own = build(open_folder(Path(folder)).checked, device="meta").state_dict()
    lacking = [name for name in new if name in own]
    if lacking:
        what = f"its weights have no `{lacking[0]}` of the shape that its graph wants"
        more = [f"and {len(lacking) - 1} more"] if len(lacking) > 1 else []
        raise fail(what, *more, where=folder, fix="convert the model again")
