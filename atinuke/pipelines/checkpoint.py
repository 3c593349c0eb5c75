"""Checkpoints: a folder a step, in safetensors and JSON, complete or absent.

A checkpoint is written beside its place, flushed to the disk, hashed, and renamed; only then are older ones removed.
So whatever happens, the newest folder named `step-...` is whole. One that nevertheless does not match its
`SHA256SUMS` (the format of `sha256sum --check`) is refused, and nothing else is loaded in its stead.

    step-000200/model.safetensors        parameters and buffers by name; a tied parameter once
                optimiser.safetensors    `exp_avg.stack.0.H.qkv.weight`: the kind of state, then the parameter
                state.json               the step, the sampler's position, the recent losses
                SHA256SUMS
"""

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Mapping
from itertools import takewhile
from pathlib import Path

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from atinuke.core.errors import AtinukeError, fail
from atinuke.pipelines.section import Section

WEIGHTS = "model.safetensors"
OPTIMISER = "optimiser.safetensors"
STATE = "state.json"
FILES = (WEIGHTS, OPTIMISER, STATE)
SUMS = "SHA256SUMS"
LISTED = 5
NAME = re.compile(r"step-[0-9]{6,}")  # and nothing behind: a copy is no newer checkpoint


class State(Section):
    """What a run must know to go on: its step, the rows of one, the sampler's state, the good losses lately and how
    many bad steps came last in a row (see `Watch`)."""

    step: int = Field(gt=0)
    rows: int = Field(gt=0)
    sampler: dict[str, int]
    recent: tuple[float, ...]
    row: int = Field(ge=0)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by their first name, sharing memory with the module."""
    named: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        named.setdefault(id(tensor), (name, tensor.detach()))
    return dict(named.values())


def load_weights(module: nn.Module, file: Path, without: Collection[str] = (), base: Path | None = None) -> None:
    """Copies the tensors of a safetensors file into a module, to the module's dtype and device; those of the nodes
    `without` are left out. What the file does not have comes from the file `base`.

    Raises:
        AtinukeError: the file is unreadable, its names and shapes are not exactly those of the module, or a parameter
            is not finite.
    """
    mine, parameters = weights(module), dict(module.named_parameters())  # a mask among the buffers may be infinite
    found = {name: tensor for name, tensor in read(file).items() if name.partition(".")[0] not in without}
    require_finite({name: found[name] for name in found.keys() & parameters}, file)
    if base:
        theirs = {
            name: tensor
            for name, tensor in read(base).items()
            if name not in found and name in mine and tensor.shape == mine[name].shape
        }
        require_finite({name: theirs[name] for name in theirs.keys() & parameters}, base)
        found |= theirs
    _fill(mine, found, file)


def save(
    folder: Path, module: nn.Module, optimiser: Optimizer, state: State, keep: int, frozen: Collection[str] = ()
) -> Path:
    """Writes the checkpoint of step `state.step`, without the `frozen` tensors, into `folder`, then removes all but the
    newest `keep`.

    Raises:
        AtinukeError: it could not be written (disk full); nothing is left of it and older ones are untouched.
    """
    final = folder / f"step-{state.step:06d}"
    draft = folder / f".{final.name}.partial"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        write({name: tensor for name, tensor in weights(module).items() if name not in frozen}, draft / WEIGHTS)
        write(_optimiser_state(module, optimiser), draft / OPTIMISER)
        (draft / STATE).write_text(state.model_dump_json())
        (draft / SUMS).write_text("".join(f"{_hash(draft / name)}  {name}\n" for name in FILES))
        for path in (*draft.iterdir(), draft):
            _flush(path)
        draft.rename(final)
        _flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise fail(
            f"the checkpoint of step {state.step} cannot be saved: {error}",
            "checkpoints saved before it are untouched",
            where=str(final),
            fix="make room on the disk, then resume",
        ) from None
    for old in saved(folder)[:-keep]:
        gone = folder / f".{old.name}.partial"
        old.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    return final


def saved(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = (path for path in folder.glob("step-*") if NAME.fullmatch(path.name) and path.is_dir())
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    """The number of steps after which a checkpoint was saved."""
    return int(path.name.removeprefix("step-"))


def load(path: Path, module: nn.Module, optimiser: Optimizer, base: Path | None = None) -> State:
    """Puts a checkpoint, and the weights of its `base`, into a module and its optimiser; returns the state it was saved
    with.

    Raises:
        AtinukeError: it is damaged, or belongs to another model; the module and optimiser must not be used then.
    """
    try:
        verify(path)
        load_weights(module, path / WEIGHTS, base=base)
        _load_optimiser(module, optimiser, path / OPTIMISER)
        return _state(path / STATE)
    except AtinukeError as error:
        before = list(takewhile(lambda other: other != path, saved(path.parent)))
        remedy = f"remove it to go on from {before[-1].name}" if before else "remove it to begin again"
        details = (line for mistake in error.mistakes for line in (mistake.what, *mistake.details))
        raise fail("this checkpoint cannot be resumed", *details, where=str(path), fix=remedy) from None


def verify(path: Path) -> None:
    """Compares every file of a checkpoint with its recorded hash.

    Raises:
        AtinukeError: naming every file that is missing or differs.
    """
    try:
        lines = (path / SUMS).read_text().splitlines()
        wanted = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    except (OSError, ValueError):
        raise fail(f"is not a checkpoint: `{SUMS}` is missing or unreadable", where=str(path)) from None
    found = {name: _hash(path / name) for name in FILES if (path / name).is_file()}
    wrong = [f"{name} is missing" for name in FILES if name not in found]
    wrong += [f"{name} does not match its hash in {SUMS}" for name in found if found[name] != wanted.get(name)]
    if wrong:
        raise fail("the checkpoint is damaged", *wrong, where=str(path), fix="restore it from a copy")


def _state(file: Path) -> State:
    try:
        return State.model_validate_json(file.read_bytes())
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()]
        raise fail("is not the state of a run", *wrong[:LISTED], where=str(file)) from None


def _optimiser_state(module: nn.Module, optimiser: Optimizer) -> dict[str, Tensor]:
    return {
        f"{kind}.{name}": tensor
        for name, parameter in module.named_parameters()
        for kind, tensor in optimiser.state.get(parameter, {}).items()
        if isinstance(tensor, Tensor)
    }


def _load_optimiser(module: nn.Module, optimiser: Optimizer, file: Path) -> None:
    parameters = dict(module.named_parameters())
    optimiser.state.clear()
    for flat, tensor in read(file).items():
        kind, _, name = flat.partition(".")
        if name not in parameters:
            raise fail(f"holds `{flat}`, but the model has no parameter `{name}`", where=str(file))
        optimiser.state[parameters[name]][kind] = tensor.to(parameters[name].device)


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        AtinukeError: it cannot be read.
    """
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise fail(f"is not a readable safetensors file: {error}", where=str(file)) from None


def write(tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file that whoever may read other new files may read (safetensors lets its owner alone).

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    file.touch()
    mode = file.stat().st_mode
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata)
    file.chmod(mode)


def require_finite(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Raises AtinukeError where a tensor of a file has values that are no numbers."""
    for name, tensor in sorted(tensors.items()):
        if tensor.is_floating_point() and not (finite := torch.isfinite(tensor)).all():
            bad = int((~finite).sum())
            raise fail(
                f"`{name}` has {bad:,} values that are NaN or infinite, of {tensor.numel():,}",
                where=str(file),
                fix="use a checkpoint from before training went wrong",
            )


def read_finite(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file with weights.

    Raises:
        AtinukeError: it cannot be read, or one of them is not finite.
    """
    found = read(file)
    require_finite(found, file)
    return found


def _fill(targets: Mapping[str, Tensor], found: Mapping[str, Tensor], file: Path) -> None:
    wrong = [f"`{name}` is missing" for name in targets if name not in found]
    wrong += [f"`{name}` is unknown to the model" for name in found if name not in targets]
    wrong += [
        f"`{name}` has shape {list(found[name].shape)}, but the model wants {list(target.shape)}"
        for name, target in targets.items()
        if name in found and found[name].shape != target.shape
    ]
    if wrong:
        more = [f"and {len(wrong) - LISTED} more"] if len(wrong) > LISTED else []
        raise fail(
            "holds the weights of another model", *wrong[:LISTED], *more, where=str(file), fix="use its own graph"
        )
    for name, target in targets.items():
        target.copy_(found[name])


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Makes a file's contents, or a folder's entries, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
