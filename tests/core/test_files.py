from pathlib import Path

import pytest

from atinuke.core.errors import AtinukeError
from atinuke.core.files import exists, is_file, replacing


def test_a_file_is_replaced_when_all_has_gone_well(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(TypeError), replacing(target) as draft:
        draft.write_text(None)  # type: ignore[arg-type]
    assert target.read_text() == "old"
    with replacing(target) as draft:
        draft.write_text("new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["folder", "file/below", "none/below", "n" * 300, "/"])
def test_what_cannot_be_written_is_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(AtinukeError, match="cannot be written"), replacing(tmp_path / name) as draft:
        draft.write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    for path in (tmp_path / ("n" * 300), tmp_path / "a\0b"):
        assert not is_file(path)
        assert not exists(path)
