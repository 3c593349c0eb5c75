"""Weights to begin with: those of another run, for every tensor that the two models share by name and shape."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from atinuke.core.errors import fail
from atinuke.core.files import replacing
from atinuke.pipelines import checkpoint
from atinuke.pipelines.base import newest_weights

LISTED = 6


@dataclass(frozen=True)
class Adopted:
    """Names of tensors: those kept, those of the other model that found no place, those that begin anew."""

    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    new: tuple[str, ...]

    def lines(self) -> list[str]:
        """What happened, for a person to read."""
        return [_line("kept", self.kept), _line("dropped", self.dropped), _line("new", self.new)]


def copy_weights(run: Path, target: Path) -> None:
    """Copies the newest weights of a run, or those of a model folder, to a file, whole or not at all.

    Raises:
        AtinukeError: there are no sound weights, or the file cannot be written.
    """
    weights = newest_weights(run)
    with replacing(target) as draft:
        shutil.copyfile(weights, draft)


@torch.no_grad()
def adopt(module: nn.Module, file: Path) -> Adopted:
    """Copies into a module every tensor of a safetensors file that it has too, in the same shape.

    Raises:
        AtinukeError: the file is unreadable, shares no tensor with the module, or has one that is not finite.
    """
    mine, theirs, parameters = checkpoint.weights(module), checkpoint.read(file), dict(module.named_parameters())
    kept = tuple(name for name, tensor in mine.items() if name in theirs and theirs[name].shape == tensor.shape)
    if not kept:
        raise fail("shares no tensor with this model", where=str(file), fix="begin from a run of a like graph")
    checkpoint.require_finite({name: theirs[name] for name in kept if name in parameters}, file)
    for name in kept:
        mine[name].copy_(theirs[name])
    return Adopted(kept, _apart(theirs, kept), _apart(mine, kept))


def _apart(tensors: dict[str, Tensor], kept: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in tensors if name not in set(kept))


def _line(what: str, names: tuple[str, ...]) -> str:
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{what} {len(names)} tensors" + (f": {', '.join(names[:LISTED])}{more}" if names else "")
