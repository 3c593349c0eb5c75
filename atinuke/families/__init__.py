"""Families of pretrained models whose weights can be read: a map file each; `path("bert")` finds one by name."""

from importlib.resources import files
from pathlib import Path

from atinuke.core.errors import fail
from atinuke.core.files import is_file
from atinuke.core.names import close

HERE = Path(str(files(__name__)))


def names() -> list[str]:
    """The names of the families that ship."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def path(name: str) -> Path:
    """The map file of a family: a path to one, or the name of a family that ships.

    Raises:
        AtinukeError: there is neither such a file nor such a family.
    """
    given = Path(name)
    if is_file(given):
        return given
    if name in names():
        return HERE / f"{name}.yaml"
    raise fail(f"no family file `{name}`", "nor does a family of that name ship", fix=close(name, names()))
