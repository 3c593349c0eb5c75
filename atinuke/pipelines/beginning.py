"""What a run begins with: its graph, and the weights of a pretrained model."""

from collections.abc import Iterable
from pathlib import Path

from atinuke.compile.front import check_graph, open_graph
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.pipelines.pretrained.folder import open_folder
from atinuke.pipelines.recipe import Recipe

ADDED = "task_"  # what the names of nodes begin with that a task adds to a graph


def open_beginning(recipe: Recipe) -> CheckedGraph:
    """The graph of a recipe, or of its pretrained model, with the head of its task.

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
    return check_graph(recipe.task.head(checked)) if recipe.task else checked


def require_found(new: Iterable[str], folder: str) -> None:
    """Raises AtinukeError where a tensor begins anew that the pretrained model has to have."""
    lacking = [name for name in new if not name.startswith(ADDED)]
    if lacking:
        what = f"its weights have no `{lacking[0]}` of the shape that its graph wants"
        more = [f"and {len(lacking) - 1} more"] if len(lacking) > 1 else []
        raise fail(what, *more, where=folder, fix="convert the model again")
