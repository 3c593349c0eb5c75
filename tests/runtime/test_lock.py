"""A bundle is refused when anything in it is not what was sealed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atinuke.core.errors import AtinukeError
from atinuke.runtime.bundle import CONFIG, WEIGHTS, open_bundle
from atinuke.runtime.lock import LOCK, Entry, check_files, read_lock, write_lock
from tests.runtime.bundles import MADE, forward_bundle, read, relock, write

ONNX = "targets/onnx/fp32/forward.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "bundle"
    forward_bundle(made)
    return made


def refused(folder: Path) -> str:
    """The one line that says why."""
    with pytest.raises(AtinukeError) as error:
        open_bundle(folder)
    assert len(error.value.mistakes) == 1
    (mistake,) = error.value.mistakes
    assert str(mistake.where).startswith(str(folder))
    assert not mistake.details
    return mistake.what


def test_the_lock_has_every_file_and_where_things_come_from(folder: Path) -> None:
    lock = check_files(folder)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*lock.files, LOCK}
    assert [*lock.files] == sorted(lock.files)
    # SHA-256 of the bytes 0 to 255, as coreutils prints it
    assert lock.files[WEIGHTS] == Entry(256, "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880")
    assert lock.provenance == MADE


def test_the_same_files_and_versions_give_the_same_lock(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / LOCK).unlink()
    write_lock(tmp_path / "other", MADE)
    assert (folder / LOCK).read_bytes() == (tmp_path / "other" / LOCK).read_bytes()


def tampered(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[100] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def truncated(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, 200)


def missing(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def unlisted(folder: Path) -> None:
    (folder / "targets/onnx/fp32/more.data").write_bytes(b"x")


def empty_folder(folder: Path) -> None:
    (folder / "targets/empty").mkdir()


def link_to_a_file(folder: Path) -> None:
    shutil.copyfile(folder / WEIGHTS, folder.parent / "same")
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder.parent / "same")


def link_to_a_folder(folder: Path) -> None:
    (folder / "targets").rename(folder.parent / "targets")
    (folder / "targets").symlink_to(folder.parent / "targets")


def link_nobody_lists(folder: Path) -> None:
    (folder / "extra").symlink_to("/etc")


def pipe(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


def link_for_a_lock(folder: Path) -> None:
    (folder / LOCK).rename(folder.parent / "lock")
    (folder / LOCK).symlink_to(folder.parent / "lock")


def no_lock(folder: Path) -> None:
    (folder / LOCK).unlink()


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (tampered, "`model.safetensors` is not the file that was sealed: atinuke.lock says SHA-256 40aff2e9d2d8922e"),
        (truncated, "`model.safetensors` is not the file that was sealed: atinuke.lock says 256 bytes, it has 200"),
        (missing, "`model.safetensors` is missing"),
        (unlisted, '"targets/onnx/fp32/more.data" is not in atinuke.lock'),
        (empty_folder, "`targets/empty` is an empty folder"),
        (link_to_a_file, '"model.safetensors" is a link'),
        (link_to_a_folder, '"targets" is a link'),
        (link_nobody_lists, '"extra" is a link'),
        (pipe, '"model.safetensors" is no plain file'),
        (link_for_a_lock, "there is no such file"),
        (no_lock, "there is no such file"),
    ],
)
def test_a_changed_bundle_is_refused(folder: Path, attack: Callable[[Path], None], says: str) -> None:
    open_bundle(folder)
    attack(folder)
    assert says in refused(folder)


def lie(path: tuple[str, ...], value: Any) -> Callable[[Any], None]:
    def change(lock: Any) -> None:
        for key in path[:-1]:
            lock = lock[key]
        lock[path[-1]] = value

    return change


def another_files_hash(lock: Any) -> None:
    lock["files"][WEIGHTS]["sha256"] = lock["files"][ONNX]["sha256"]


def without_version(lock: Any) -> None:
    del lock["version"]


ENTRY = {"size": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lie(("atinuke",), 2), "is of format 2; this Atinuke reads format 1"),
        (lie(("atinuke",), 10**400), "is of format 1" + "0" * 55 + "...; this"),
        (lie(("atinuke",), True), "must be the format's number"),
        (another_files_hash, "is not the file that was sealed: atinuke.lock says SHA-256"),
        (lie(("files", WEIGHTS, "size"), 255), "says 255 bytes, it has 256"),
        (lie(("files", WEIGHTS, "size"), -1), "must be a whole number"),
        (lie(("files", WEIGHTS, "sha256"), "0" * 63), "must be 64 hexadecimal digits"),
        (lie(("files", "../outside"), ENTRY), '"../outside" is not a path'),
        (lie(("files", "targets/../../x"), ENTRY), "is not a path"),
        (lie(("files", "/etc/passwd"), ENTRY), '"/etc/passwd" is not a path'),
        (lie(("files", "C:/x"), ENTRY), "is not a path"),
        (lie(("files", "a\\b"), ENTRY), "is not a path"),
        (lie(("files", "a\u0000b"), ENTRY), "is not a path"),
        (lie(("files", "./config.json"), ENTRY), "is not a path"),
        (lie(("files", "config.json/"), ENTRY), "is not a path"),
        (lie(("files", ".hidden"), ENTRY), "is not a path"),
        (lie(("files", LOCK), ENTRY), "is not a path"),
        (lie(("files", "a/" * 8 + "a"), ENTRY), "is not a path"),
        (lie(("files", "CONFIG.json"), ENTRY), "differ only in case"),
        (lie(("files", "targets/x.pkl"), ENTRY), "is code or a pickle"),
        (lie(("files", "targets/x.PY"), ENTRY), "is code or a pickle"),
        (lie(("files", "absent"), ENTRY), "`absent` is missing"),
        (lie(("more",), 1), "more is not known"),
        (without_version, "version is missing"),
        (lie(("components", "add"), {}), "components.add.plugin is missing"),
        (lie(("packages", "torch"), 2), "packages.torch must be a version, not 2"),
        (lie(("files",), {f"f{i}": ENTRY for i in range(10_001)}), "lists more than 10,000 files"),
    ],
)
def test_a_lock_that_lies_is_refused(folder: Path, change: Callable[[Any], None], says: str) -> None:
    lock = read(folder, LOCK)
    change(lock)
    write(folder, LOCK, lock)
    assert says in refused(folder)


@pytest.mark.parametrize("name", ["weights.pkl", "run.py", ".hidden", "two words", "ünicode"])
def test_what_no_bundle_may_hold_is_not_sealed(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    before = (folder / LOCK).read_bytes()
    with pytest.raises(AtinukeError, match=r"code or a pickle|not a path"):
        write_lock(folder, MADE)
    assert (folder / LOCK).read_bytes() == before


def test_a_file_where_none_belongs_is_refused_though_the_lock_lists_it(folder: Path) -> None:
    (folder / "targets/tensorrt/fp16").mkdir(parents=True)
    (folder / "targets/tensorrt/fp16/forward.engine").write_bytes(b"x")
    relock(folder)
    assert "`targets/tensorrt/fp16/forward.engine` is neither" in refused(folder)


def test_a_build_without_files_is_refused(folder: Path) -> None:
    config = read(folder, CONFIG)
    config["builds"].append("openvino/fp32")
    write(folder, CONFIG, config)
    relock(folder)
    assert "names the build openvino/fp32, of which there are no files" in refused(folder)


def test_the_lock_survives_what_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / LOCK).read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(AtinukeError, match="No space left"):
        write_lock(folder, MADE)
    assert (folder / LOCK).read_bytes() == before
    assert read_lock(folder).provenance == MADE
