"""A bundle as a .zip: the same bytes for the same files, and no archive that hurts who opens it."""

import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke import __version__
from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.deploy import Subject, compile_bundle
from atinuke.runtime.archive import Limits, pack, unpack
from atinuke.runtime.bundle import WEIGHTS, open_bundle
from atinuke.runtime.lock import LOCK, Origin, read_lock
from tests.runtime.bundles import forward_bundle, read, write


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where archives are unpacked."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    forward_bundle(tmp_path / "bundle")
    pack(tmp_path / "bundle", tmp_path / "bundle.zip")
    return tmp_path / "bundle.zip"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_zip_opens_like_its_folder(archive: Path, tmp_path: Path) -> None:
    packed, folder = open_bundle(archive), open_bundle(tmp_path / "bundle")
    assert files(packed.folder) == files(folder.folder)
    assert vars(packed) | {"folder": None} == vars(folder) | {"folder": None}


def test_the_same_files_give_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle" / WEIGHTS).touch()
    pack(tmp_path / "bundle", tmp_path / "again.zip")
    assert archive.read_bytes() == (tmp_path / "again.zip").read_bytes()
    with zipfile.ZipFile(archive) as whole:
        assert whole.namelist() == sorted(whole.namelist())
        assert {entry.compress_type for entry in whole.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time for entry in whole.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_zip_that_other_tools_made_opens_too(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w", zipfile.ZIP_DEFLATED) as whole:
        whole.mkdir("targets")
        for path, content in files(tmp_path / "bundle").items():
            whole.writestr(path, content)
    assert open_bundle(tmp_path / "other.zip").builds == ("onnx/fp32",)


def test_a_zip_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    forward_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / WEIGHTS).unlink()
    with pytest.raises(AtinukeError, match="cannot be written"):
        pack(tmp_path / "bundle", tmp_path / "bundle.zip")
    assert not list(tmp_path.glob("*.zip*"))


def test_a_zip_of_changed_files_is_refused(tmp_path: Path) -> None:
    forward_bundle(tmp_path / "bundle")
    content = (tmp_path / "bundle" / WEIGHTS).read_bytes()
    (tmp_path / "bundle" / WEIGHTS).write_bytes(content[::-1])
    pack(tmp_path / "bundle", tmp_path / "bundle.zip")
    with pytest.raises(AtinukeError, match=r"`model.safetensors` is not the file that was sealed"):
        open_bundle(tmp_path / "bundle.zip")


def entry(name: str, kind: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = kind << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def climbing(whole: zipfile.ZipFile) -> None:
    whole.writestr(entry("targets/../../../out"), b"x")


def absolute(whole: zipfile.ZipFile) -> None:
    whole.writestr(entry("/tmp/out"), b"x")


def backslash(whole: zipfile.ZipFile) -> None:
    whole.writestr(entry("..\\out"), b"x")


def climbing_folder(whole: zipfile.ZipFile) -> None:
    whole.writestr(entry("../"), b"")


def link(whole: zipfile.ZipFile) -> None:
    whole.writestr(entry("link", stat.S_IFLNK | 0o777), b"/etc/passwd")


def device(whole: zipfile.ZipFile) -> None:
    whole.writestr(entry("device", stat.S_IFBLK | 0o777), b"")


def twice(whole: zipfile.ZipFile) -> None:
    whole.writestr(entry(WEIGHTS), b"x")


def other_case(whole: zipfile.ZipFile) -> None:
    whole.writestr(entry("Config.json"), b"{}")


def file_and_folder(whole: zipfile.ZipFile) -> None:
    whole.writestr(entry("targets"), b"x")


def bomb(whole: zipfile.ZipFile) -> None:
    whole.writestr(entry("graph2.yaml"), bytes(16 << 20))


def many(whole: zipfile.ZipFile) -> None:
    for i in range(10_001):
        whole.writestr(f"f{i}", b"")


def other_packing(whole: zipfile.ZipFile) -> None:
    whole.writestr("x", b"x", zipfile.ZIP_LZMA)


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (climbing, r'"targets/../../../out" is not a path that a bundle may have'),
        (absolute, r'"/tmp/out" is not a path'),
        (backslash, "is not a path"),
        (climbing_folder, r'"../" is not a path'),
        (link, '"link" is a link'),
        (device, '"device" is no plain file'),
        (twice, '"model.safetensors" is there twice'),
        (other_case, '"Config.json" is there twice, or again in another case'),
        (file_and_folder, '"targets" is a file and a folder'),
        (bomb, "that is no bundle"),
        (many, "a bundle has at most 10,001"),
        (other_packing, '"x" is packed in a way that bundles do not use'),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_zip_is_refused_and_leaves_nothing(
    archive: Path, tmp_path: Path, temporary: Path, attack: Callable[[zipfile.ZipFile], None], says: str
) -> None:
    with zipfile.ZipFile(archive, "a") as whole:
        attack(whole)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(AtinukeError) as error:
        open_bundle(archive)
    (mistake,) = error.value.mistakes
    assert says in mistake.what
    assert mistake.where == str(archive)
    assert set(tmp_path.rglob("*")) == before
    assert not list(temporary.iterdir())


def test_a_name_with_a_zero_byte_is_refused(archive: Path) -> None:
    content = archive.read_bytes().replace(b"graph.yaml", b"graph.\0aml")
    archive.write_bytes(content)
    with pytest.raises(AtinukeError, match="is not a path"):
        open_bundle(archive)


def test_an_encrypted_zip_is_refused(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1  # the flag of the first entry
    archive.write_bytes(content)
    with pytest.raises(AtinukeError, match="is encrypted"):
        open_bundle(archive)


def test_a_zip_of_a_later_version_is_refused(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 64  # the version that the first entry needs: 6.4
    archive.write_bytes(content)
    with pytest.raises(AtinukeError, match=r"zip file version 6\.4"):
        open_bundle(archive)


def test_entries_that_share_their_bytes_are_refused(archive: Path) -> None:
    """Fifield (2019): a bomb without nesting, whose entries overlap."""
    with zipfile.ZipFile(archive, "a") as whole:
        whole.writestr("big", bytes(range(256)) * 400)
        big = whole.getinfo("big")
        for i in range(3):
            again = entry(f"big{i}")
            again.compress_type = zipfile.ZIP_STORED
            again.header_offset, again.CRC = big.header_offset, big.CRC
            again.file_size = again.compress_size = big.file_size
            whole.filelist.append(again)
            whole.NameToInfo[again.filename] = again
    with pytest.raises(AtinukeError, match="overlap"):
        open_bundle(archive)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(size=255), "has 256 bytes; at most 255 are read|bytes; at most 255 are read"),
        (Limits(total=999), "at most 999 are read"),
        (Limits(files=3), "a bundle has at most 3"),
    ],
)
def test_limits_hold(archive: Path, limits: Limits, says: str) -> None:
    with pytest.raises(AtinukeError, match=says):
        unpack(archive, limits)


def test_what_has_no_room_is_refused_before_it_is_unpacked(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(AtinukeError, match="there is room for 100"):
        open_bundle(archive)


def test_a_size_that_lies_is_refused(archive: Path) -> None:
    """The index says fewer bytes than there are, or more."""
    for said in (255, 257):
        content = bytearray(archive.read_bytes())
        at = content.rindex(b"model.safetensors") - 46
        assert content[at : at + 4] == b"PK\x01\x02"
        struct.pack_into("<I", content, at + 24, said)
        lying = archive.with_name("lying.zip")
        lying.write_bytes(content)
        with pytest.raises(AtinukeError, match=r"is no .zip that can be read"):
            open_bundle(lying)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with zipfile.ZipFile(tmp_path / "inside.zip", "w") as whole:
        whole.writestr(f"bundle/{LOCK}", b"{}")
    for name, says in (
        ("text", "is no .zip that can be read: it is damaged or cut short"),
        ("inside.zip", "it has no atinuke.lock"),
        ("none.zip", "there is no such bundle"),
        ("a\0b", "there is no such bundle"),
    ):
        with pytest.raises(AtinukeError, match=says):
            open_bundle(tmp_path / name)


def test_a_newer_format_is_told_from_a_zip_too(tmp_path: Path) -> None:
    forward_bundle(tmp_path / "bundle")
    pack(tmp_path / "bundle", tmp_path / "bundle.zip")
    write(tmp_path / "bundle", LOCK, {**read(tmp_path / "bundle", LOCK), "atinuke": 2, "new": 1})
    with zipfile.ZipFile(tmp_path / "newer.zip", "w") as whole:
        for path, content in files(tmp_path / "bundle").items():
            whole.writestr(path, content)
    with pytest.raises(AtinukeError, match="is of format 2; this Atinuke reads format 1") as error:
        open_bundle(tmp_path / "newer.zip")
    assert error.value.mistakes[0].fix == "update Atinuke"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_refused_and_never_crashes(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any bytes of a .zip changed, cut out or put in: an error of ours, or the bundle as it was sealed."""
    place = tmp_path_factory.mktemp("damage")
    whole = _good(tmp_path_factory)
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, len(content)), st.integers(max(0, len(content) - 600), len(content))))
        end = at + data.draw(st.integers(0, 8))
        content[at:end] = data.draw(st.binary(max_size=8))
    (place / "bundle.zip").write_bytes(content)
    try:
        bundle = open_bundle(place / "bundle.zip")
    except AtinukeError:
        return
    assert (bundle.folder / WEIGHTS).read_bytes() == bytes(range(256))


_MADE: list[bytes] = []


def _good(factory: pytest.TempPathFactory) -> bytes:
    if not _MADE:
        folder = factory.mktemp("good")
        forward_bundle(folder / "bundle")
        pack(folder / "bundle", folder / "bundle.zip")
        _MADE.append((folder / "bundle.zip").read_bytes())
    return _MADE[0]


def test_a_graph_is_compiled_into_a_zip(tmp_path: Path) -> None:
    sizes = ("batch=1..2", "height=8..8", "width=8..8", "channels=1", "patch=4", "classes=3")
    checked = open_graph("vit", [*sizes, "d_model=8", "heads=2", "layers=1"])
    bundle = compile_bundle(Subject(checked, build(checked).eval()), ["onnx/fp32"], tmp_path / "vit.zip")
    assert [path.name for path in tmp_path.iterdir() if path.name != "temporary"] == ["vit.zip"]
    assert {"torch", "onnx"} <= read_lock(bundle.folder).provenance.packages.keys()
    assert read_lock(bundle.folder).provenance.components["attention.self"] == Origin("", "atinuke", __version__)
    pixels = np.zeros((2, 1, 8, 8), np.uint8)
    assert bundle.runner("onnx/fp32").run("forward", {"pixel_values": pixels})["logits"].shape == (2, 3)
