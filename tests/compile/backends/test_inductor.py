"""The model of a bundle, compiled where it runs; what was compiled is kept where only the user can write."""

import os
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import config

from atinuke.compile.backends.inductor import InductorBuilder
from atinuke.core.errors import AtinukeError
from atinuke.runtime.inductor import CACHE, FILE, InductorRunner, keep_compiled
from tests.compile.deploying import Tiny


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(CACHE, raising=False)
    return tmp_path / "cache" / "atinuke" / "inductor"


def place(tiny: Tiny, bundle: Path, precision: str) -> Path:
    tiny.save(bundle)
    folder = bundle / "targets" / "inductor" / precision
    folder.mkdir(parents=True)
    InductorBuilder().build(tiny.work(precision), folder)
    return folder


@pytest.mark.slow
def test_a_decoder_is_compiled_once_for_all_sizes(tmp_path: Path, kept: Path) -> None:
    torch._dynamo.reset()
    tiny = Tiny("gpt2", only=["decode"])
    folder = place(Tiny("gpt2"), tmp_path, "bf16")
    runner = InductorRunner(folder, Tiny("gpt2").interfaces, tiny.axes, "bf16")
    before = counters["stats"]["unique_graphs"]
    with config.patch(cpp_cache_precompile_headers=False):  # nothing else would share them
        assert tiny.worst(runner, 0, 1, 2, 5) < 2e-2
    assert counters["stats"]["unique_graphs"] == before + 1
    assert any(kept.rglob("*.so"))
    assert not any(path.suffix != ".json" for path in folder.iterdir())  # nothing of it is in the bundle
    torch._dynamo.reset()


def test_compiled_files_are_the_users_own(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_compiled()
    assert os.environ[CACHE] == str(kept)
    assert kept.stat().st_mode & 0o077 == 0
    monkeypatch.setenv(CACHE, "elsewhere")
    keep_compiled()
    assert os.environ[CACHE] == "elsewhere"


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"float32": 3}'])
def test_a_missing_or_damaged_note_is_refused(tmp_path: Path, kept: Path, text: str | None) -> None:
    tiny = Tiny("gpt2")
    folder = place(tiny, tmp_path, "fp32")
    (folder / FILE).unlink()
    if text is not None:
        (folder / FILE).write_text(text)
    with pytest.raises(AtinukeError, match="does not tell which nodes stay in float32"):
        InductorRunner(folder, tiny.interfaces, tiny.axes, "fp32")
