"""The base of an adapted run: weights that it reads and never writes, named by path and hash in `base.json`.

A run with the section `adapt` saves only what it trains. Opening it puts the two together, and refuses a base whose
bytes are no longer those that it was trained on.
"""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from atinuke.core.errors import fail
from atinuke.core.files import is_file, replacing
from atinuke.pipelines import checkpoint
from atinuke.pipelines.pretrained.files import WEIGHTS as MODEL
from atinuke.pipelines.pretrained.folder import is_model_folder
from atinuke.pipelines.section import Section

NAME = "base.json"


class Base(Section):
    """A safetensors file and its SHA-256."""

    path: str
    sha256: str


def newest_weights(run: Path) -> Path:
    """The file with the newest weights of a run, or with those of a model folder.

    Raises:
        AtinukeError: there is no sound checkpoint, or the run is adapted itself.
    """
    if is_model_folder(run):
        return run / MODEL
    if (run / NAME).exists():
        fix = f"begin from its own base, which `{NAME}` names"
        raise fail("is an adapted run, whose weights are not whole", where=str(run), fix=fix)
    found = checkpoint.saved(run / "checkpoints")
    if not found:
        raise fail("has no checkpoint to begin from", where=str(run), fix="name the folder of a run that has trained")
    checkpoint.verify(found[-1])
    return found[-1] / checkpoint.WEIGHTS


def write_base(run: Path, weights: Path) -> None:
    """Names the base of a run.

    Raises:
        AtinukeError: the weights cannot be read, or the note cannot be written.
    """
    base = Base(path=str(weights.resolve()), sha256=_hash(weights))
    with replacing(run / NAME) as draft:
        draft.write_text(base.model_dump_json(indent=2) + "\n", encoding="utf-8")


def base_of(run: Path) -> Path | None:
    """The weights that a run is adapted from; None where it is not adapted.

    Raises:
        AtinukeError: they are gone, or are not what they were.
    """
    file = run / NAME
    if not file.exists():
        return None
    try:
        base = Base.model_validate_json(file.read_bytes())
    except ValidationError:
        raise fail("does not name a base", where=str(file), fix="restore it from a copy") from None
    weights = Path(base.path)
    if not is_file(weights):
        fix = f"bring it back, or let `path` in {file} say where it lies now"
        raise fail("the base of this run is gone", f"it was {weights}", where=str(run), fix=fix)
    found = _hash(weights)
    if found != base.sha256:
        details = f"{weights} has the SHA-256 {found}", f"the run was adapted from {base.sha256}"
        raise fail("this is not the base of this run", *details, where=str(run), fix="bring back the weights it had")
    return weights


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror}", where=str(path), fix="name weights that are there") from None
