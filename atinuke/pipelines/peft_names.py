"""What the modules of a model are called where it comes from, and which outputs of our linear maps they are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from atinuke.compile.front import check_graph
from atinuke.compile.merge import without_lora
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.pipelines.base import base_of
from atinuke.pipelines.pretrained.family import load_family
from atinuke.pipelines.pretrained.files import WEIGHTS
from atinuke.pipelines.pretrained.folder import FAMILY, is_model_folder, open_folder
from atinuke.pipelines.pretrained.graph import weights_of
from atinuke.pipelines.pretrained.moves import Move, plan
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.train import RECIPE

WEIGHT = ".weight"


@dataclass(frozen=True)
class Place:
    """A module of theirs: which outputs of which linear map of ours it is, and how many inputs they have."""

    ours: str
    start: int
    stop: int
    inputs: int


@dataclass(frozen=True)
class Names:
    """What the tensors of a base are called there. `prefix` is what some of their classes leave out."""

    moves: Mapping[str, Move]
    prefix: str
    name: str

    def places(self, ours: str) -> Iterator[tuple[str, Place]]:
        """The modules of theirs that a linear map of ours is, without zeros."""
        move = self.moves.get(f"{ours}{WEIGHT}")
        if move is None or move.view or len(move.ours) > 1:
            raise fail(f"the map of `{ours}` has no like among the modules of {self.name}", where=ours)
        start = 0
        for name, shape in move.theirs:
            rows, inputs = shape[::-1] if move.transpose else shape
            if name is not None:
                yield name.removesuffix(WEIGHT), Place(ours, start, start + rows, inputs)
            start += rows

    @property
    def transposed(self) -> bool:
        return any(move.transpose for move in self.moves.values())


def folder_of(source: Path) -> Path | None:
    """The model folder that a run went on from; a model folder itself; None where there is none.

    Raises:
        AtinukeError: the base of an adapted run is gone, or is not what it was.
    """
    if is_model_folder(source):
        return source
    base = base_of(source)
    if base is None and (source / RECIPE).is_file():
        pretrained = load_recipe(source / RECIPE).pretrained
        base = Path(pretrained) / WEIGHTS if pretrained else None
    return base.parent if base and is_model_folder(base.parent) else None


def names_of(source: Path, checked: CheckedGraph) -> Names:
    folder = folder_of(source)
    if folder is None:
        weights = weights_of(check_graph(without_lora(checked.graph)))
        moves = {name: Move(((name, shape),), ((name, shape),)) for name, shape in weights.parameters.items()}
        return Names(moves, "", checked.graph.name)
    opened = open_folder(folder)
    family = load_family(folder / FAMILY)
    plain = check_graph(without_lora(opened.checked.graph))
    prefixed = family.architectures[opened.config.architecture].prefix
    planned = plan(family, weights_of(plain), plain.dims, prefixed)
    moves = {name: move for move in planned.moves for name, _ in move.ours}
    called = opened.config.huggingface.get("_name_or_path") or opened.config.architecture
    return Names(moves, family.prefix, str(called))
