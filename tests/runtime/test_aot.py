"""Packages of native code are opened only on a machine like the one that built them."""

import json
from pathlib import Path

import pytest

from atinuke.core.errors import AtinukeError
from atinuke.runtime.aot import MACHINE, AotRunner, require_machine, this_machine
from atinuke.runtime.runner import NotHereError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / MACHINE


def write(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**this_machine(), **changes}))


def test_this_machine_and_one_with_fewer_instructions_will_do(file: Path) -> None:
    write(file)
    require_machine(file)
    write(file, instructions=this_machine()["instructions"][1:])
    require_machine(file)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"torch": "2.1.0"}, "the packages are for torch 2.1.0"),
        ({"system": "linux riscv64"}, "the packages are for system linux riscv64"),
        ({"device": "cuda"}, "the packages are for device cuda"),
        ({"instructions": ["avx4096", "fma99"]}, "this one lacks avx4096, fma99"),
        ({"instructions": 3}, "does not tell which machine"),
        ({"instructions": [["avx2"]]}, "does not tell which machine"),
    ],
)
def test_another_machine_is_refused_before_anything_is_opened(file: Path, changes: dict, told: str) -> None:
    write(file, **changes)
    (file.parent / "forward.pt2").write_bytes(b"not opened")
    with pytest.raises(AtinukeError, match=told):
        AotRunner(file.parent, {"forward": None}, {}, "fp32")


@pytest.mark.parametrize("text", [None, "", "[]", "3", '{"torch": 1}', "\ud800"])
def test_a_missing_or_damaged_note_is_refused(file: Path, text: str | None) -> None:
    if text is not None:
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(AtinukeError, match="does not tell which machine"):
        require_machine(file)


def test_a_damaged_package_is_refused(file: Path) -> None:
    write(file)
    for content in (b"", b"no package at all", b"PK\x03\x04" + bytes(200)):
        (file.parent / "forward.pt2").write_bytes(content)
        with pytest.raises(AtinukeError, match="torch cannot open the package"):
            AotRunner(file.parent, {"forward": None}, {}, "fp32")
    (file.parent / "forward.pt2").unlink()
    with pytest.raises(AtinukeError, match="torch cannot open the package"):
        AotRunner(file.parent, {"forward": None}, {}, "fp32")


def test_a_torch_that_cannot_tell_the_instructions_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("torch.cpu.get_capabilities")
    with pytest.raises(NotHereError, match="cannot tell the machine's instructions"):
        this_machine()
