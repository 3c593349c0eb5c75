import json
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from atinuke.core.errors import AtinukeError
from atinuke.pipelines import checkpoint
from atinuke.pipelines.optimiser import build_optimiser
from atinuke.pipelines.recipe import SGD, AdamW
from tests.pipelines.toy import Toy, make


def trained(settings: AdamW | SGD, width: int = 16) -> tuple[nn.Module, torch.optim.Optimizer]:
    toy = Toy(width)
    optimiser = build_optimiser(toy, settings)
    for row in range(3):
        toy(**make(range(row, row + 2))).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return toy, optimiser


ADAMW = AdamW(name="adamw", lr=1e-2)


def state(step: int) -> checkpoint.State:
    return checkpoint.State(step=step, rows=2, sampler={"position": 5}, recent=(2.5, 0.1), row=0)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the operating system's own failure, not a mock."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_who_may_read_other_new_files_may_read_checkpoints(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = checkpoint.save(tmp_path, *trained(ADAMW), state(3), keep=1)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o640}


@pytest.mark.parametrize("settings", [ADAMW, SGD(name="sgd", lr=1e-2)])
def test_what_is_saved_is_loaded(tmp_path: Path, settings: AdamW | SGD) -> None:
    toy, optimiser = trained(settings)
    path = checkpoint.save(tmp_path, toy, optimiser, state(3), keep=1)
    other, theirs = trained(settings)
    assert checkpoint.load(path, other, theirs) == state(3)
    for (name, ours), (_, loaded) in zip(toy.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(ours, loaded), name
        assert optimiser.state[ours].keys() == theirs.state[loaded].keys()
        for kind, value in optimiser.state[ours].items():
            assert torch.equal(value, theirs.state[loaded][kind]), (name, kind)
    assert other.O.weight is other.E.weight


def test_the_files_are_those_of_the_ecosystem(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, *trained(ADAMW), state(3), keep=1)
    tensors = load_file(path / "model.safetensors")
    assert "E.weight" in tensors
    assert "O.weight" not in tensors  # tied: stored once
    assert tensors["scale"] == 1.5
    assert "exp_avg.stack.0.linear.weight" in load_file(path / "optimiser.safetensors")
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=path, check=True, capture_output=True)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    toy, optimiser = trained(ADAMW)
    for step in (9, 10, 1_000_000, 2_000_000):
        checkpoint.save(tmp_path, toy, optimiser, state(step), keep=2)
    assert [path.name for path in checkpoint.saved(tmp_path)] == ["step-1000000", "step-2000000"]
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_called_otherwise_is_no_checkpoint(tmp_path: Path) -> None:
    newest = checkpoint.save(tmp_path, *trained(ADAMW), state(4), keep=2)
    (tmp_path / "step-000002.bak").mkdir()
    (tmp_path / "step-000005 (copy)").mkdir()
    (tmp_path / "step-notes.txt").touch()
    (tmp_path / "step-000009").touch()
    assert checkpoint.saved(tmp_path) == [newest]


@pytest.mark.parametrize("size", [0, 100, 2_000, 10_000])
def test_a_full_disk_leaves_the_last_one_whole(tmp_path: Path, size: int) -> None:
    toy, optimiser = trained(ADAMW, width=32)
    first = checkpoint.save(tmp_path, toy, optimiser, state(1), keep=1)
    with disk_of(size), pytest.raises(AtinukeError, match=r"step 2 cannot be saved: .*File too large") as caught:
        checkpoint.save(tmp_path, toy, optimiser, state(2), keep=1)
    assert len(caught.value.mistakes) == 1
    assert list(tmp_path.iterdir()) == [first]
    checkpoint.load(first, toy, optimiser)


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "state.json", "SHA256SUMS"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "empty"])
def test_a_damaged_one_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    toy, optimiser = trained(ADAMW)
    checkpoint.save(tmp_path, toy, optimiser, state(1), keep=2)
    path = checkpoint.save(tmp_path, toy, optimiser, state(2), keep=2)
    raw = (path / name).read_bytes()
    if damage == "gone":
        (path / name).unlink()
    else:
        middle = len(raw) // 2
        flipped = raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
        (path / name).write_bytes({"cut": raw[:middle], "flip": flipped, "empty": b""}[damage])
    with pytest.raises(AtinukeError) as caught:
        checkpoint.load(path, toy, optimiser)
    text = str(caught.value)
    assert len(caught.value.mistakes) == 1
    assert str(path) in text
    assert "is missing" in text or "does not match its hash" in text
    assert "remove it to go on from step-000001" in text


def test_one_of_another_model_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, *trained(ADAMW, width=8), state(1), keep=1)
    toy, optimiser = trained(ADAMW)
    before = {name: tensor.clone() for name, tensor in checkpoint.weights(toy).items()}
    with pytest.raises(AtinukeError, match=r"`E.weight` has shape \[17, 8\], but the model wants \[17, 16\]"):
        checkpoint.load(path, toy, optimiser)
    with pytest.raises(AtinukeError, match="holds the weights of another model"):
        checkpoint.load_weights(nn.Linear(2, 2), path / "model.safetensors")
    assert all(torch.equal(before[name], tensor) for name, tensor in checkpoint.weights(toy).items())


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "step-000001").mkdir()
    with pytest.raises(AtinukeError, match="is not a checkpoint"):
        checkpoint.verify(tmp_path / "step-000001")
    (tmp_path / "x.safetensors").write_text(json.dumps({"not": "safetensors"}))
    with pytest.raises(AtinukeError, match="is not a readable safetensors file"):
        checkpoint.load_weights(Toy(), tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "foreign", ["[]", "{", '{"step": 1}', '{"step": "1", "rows": 2, "sampler": {}, "recent": [], "row": 0}']
)
def test_a_state_that_is_whole_but_foreign_is_refused(tmp_path: Path, foreign: str) -> None:
    toy, optimiser = trained(ADAMW)
    path = checkpoint.save(tmp_path, toy, optimiser, state(1), keep=1)
    (path / "state.json").write_text(foreign)
    sums = subprocess.run(["sha256sum", *checkpoint.FILES], cwd=path, check=True, capture_output=True, text=True)
    (path / "SHA256SUMS").write_text(sums.stdout)
    with pytest.raises(AtinukeError, match="is not the state of a run") as caught:
        checkpoint.load(path, toy, optimiser)
    assert "remove it to begin again" in str(caught.value)
