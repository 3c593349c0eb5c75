"""A model folder: pretrained weights as a graph of ours, with what is needed to write them back.

config.json         ours: the family and architecture, and their config.json as it was
family.yaml         the map file
graph.yaml          the graph, at its sizes
model.safetensors   its weights by our names, in the precision they came in
tokenizer.json ...  their files about texts, pictures and sound, as they were
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from atinuke.compile.front import open_graph
from atinuke.core.checked import CheckedGraph
from atinuke.core.dump import dump
from atinuke.core.errors import fail, first_line
from atinuke.core.files import exists
from atinuke.core.graph import frozen
from atinuke.pipelines.pretrained.config import CONFIG, read_json
from atinuke.pipelines.section import Section

FAMILY, GRAPH, TOKENIZER = "family.yaml", "graph.yaml", "tokenizer.json"
CARRIED = tuple(
    """
    tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.txt vocab.json merges.txt
    tokenizer.model spiece.model sentencepiece.bpe.model chat_template.jinja chat_template.json normalizer.json
    preprocessor_config.json processor_config.json generation_config.json
    """.split()  # noqa: SIM905 - a list literal of these would hide them
)
"""Files of theirs that go both ways as they are."""


class Config(Section):
    """Our config.json. `structure` is the graph's without its sizes, by which a change of it is noticed."""

    format: Literal["atinuke.model"]
    version: Literal[1]
    family: str
    architecture: str
    structure: str
    huggingface: Annotated[dict[str, Any], Field(strict=False)]


@dataclass(frozen=True)
class ModelFolder:
    """A model folder's graph and what it is of."""

    path: Path
    config: Config
    checked: CheckedGraph


def is_model_folder(folder: Path) -> bool:
    """Whether a folder was written by `atinuke convert`."""
    try:
        return '"atinuke.model"' in (folder / CONFIG).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def open_folder(folder: Path) -> ModelFolder:
    """A model folder without its weights.

    Raises:
        AtinukeError: it is none, or a file of it is damaged.
    """
    return ModelFolder(folder, config_of(folder), open_graph(str(folder / GRAPH)))


def config_of(folder: Path) -> Config:
    """Our config.json of a model folder.

    Raises:
        AtinukeError: it is no model folder, or its config.json is damaged.
    """
    if not is_model_folder(folder):
        raise fail("is no model folder", where=str(folder), fix="make one with `atinuke convert`")
    try:
        return Config.model_validate(read_json(folder / CONFIG))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise fail(
            "is not the config of a model folder", wrong, where=str(folder / CONFIG), fix="convert it again"
        ) from None


def structure(checked: CheckedGraph) -> str:
    """The same for graphs that differ only in the sizes of dims and axes."""
    bare = replace(checked.graph, dims=frozen(), axes=frozen(), name="graph")
    return hashlib.sha256(dump(bare).encode()).hexdigest()


def write_json(file: Path, value: Any) -> None:
    """Writes plain data, one key a line."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def carry(source: Path, target: Path) -> None:
    """Copies what goes both ways as it is."""
    for name in CARRIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def require_new(folder: Path) -> None:
    """Raises AtinukeError where there is something of that name: to be asked before long work."""
    if exists(folder):
        raise fail("is there already", where=str(folder), fix="name a new folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A draft of a folder, which takes its place when all has gone well.

    Raises:
        AtinukeError: there is something of that name, or it cannot be written; nothing is left of it.
    """
    require_new(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as draft:
            inner = Path(draft, "model")
            inner.mkdir()
            yield inner
            inner.rename(folder)
    except OSError as error:
        raise fail(f"cannot be written: {first_line(error)}", where=str(folder), fix="choose another place") from None
