"""Graph files that ship with Atinuke; `path("atinuke")` finds one by name."""

from importlib.resources import files
from pathlib import Path

from atinuke.core.errors import fail
from atinuke.core.files import is_file
from atinuke.core.names import close

HERE = Path(str(files(__name__)))


def names() -> list[str]:
    """The names of the graphs that ship."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def path(name: str) -> Path:
    """The file of a graph: a path to a graph file, the folder of a run or model, or the name of one that ships.

    Raises:
        AtinukeError: there is neither such a file nor such a graph.
    """
    given = Path(name)
    if is_file(given):
        return given
    if is_file(given / "graph.yaml"):
        return given / "graph.yaml"
    shipped = HERE / f"{name}.yaml"
    if name in names():
        return shipped
    raise fail(f"no graph file `{name}`", "nor does a graph of that name ship", fix=close(name, names()))
