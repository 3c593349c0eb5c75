"""Engines are looked at before they are loaded; and on a GPU (a pretended one, here) caches stay where they are."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atinuke.compile.onnx_precision import onnx_in
from atinuke.core.errors import AtinukeError
from atinuke.runtime import cuda
from atinuke.runtime.cuda import Cuda, DeviceArray
from atinuke.runtime.onnx import OnnxRunner
from atinuke.runtime.runner import NotHereError
from atinuke.runtime.tensorrt import TensorRTRunner, read_manifest
from atinuke.runtime.tensorrt_library import MANIFEST, library
from tests.compile.deploying import Tiny
from tests.runtime.gpu import VERSION, HostDriver, pretend


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return Tiny("gpt2")


@pytest.fixture(scope="module")
def onnx_files(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    for name, inputs in tiny.work("fp32").inputs.items():
        (folder / f"{name}.onnx").write_bytes(onnx_in(tiny.programs[name], inputs, "fp32").SerializeToString())
    return folder


@pytest.fixture
def folder(onnx_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Engines that the pretended library takes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "engines").mkdir()
    for file in onnx_files.iterdir():
        (tmp_path / "engines" / f"{file.stem}.engine").write_bytes(file.read_bytes())
    write(tmp_path / "engines")
    yield tmp_path / "engines"
    library.cache_clear()


def write(folder: Path, version: str = VERSION, capability: int = 86, later: bool = False) -> None:
    engines = {
        file.stem: [{"file": file.name, "size": file.stat().st_size, "capabilities": [capability], "later": later}]
        for file in folder.glob("*.engine")
    }
    (folder / MANIFEST).write_text(json.dumps({"library": "tensorrt_rtx", "version": version, "engines": engines}))


def opened(tiny: Tiny, folder: Path) -> TensorRTRunner:
    return TensorRTRunner(folder, tiny.interfaces, tiny.axes, "fp32")


def test_steps_on_a_gpu_are_those_of_the_cpu(
    tiny: Tiny, onnx_files: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = HostDriver()
    pretend(monkeypatch, driver)
    runners = [OnnxRunner(onnx_files, tiny.interfaces, tiny.axes, "fp32"), opened(tiny, folder)]
    random = np.random.default_rng(0)
    tokens = random.integers(31, size=(2, 5))
    memories = [runner.begin("prefill", {"batch": 2, "capacity": 5}) for runner in runners]
    feeds = {"input_ids": tokens, "position": np.zeros(2, np.int64), "last": np.array([4, 2])}
    wanted, got = (runner.step("prefill", feeds, memory) for runner, memory in zip(runners, memories, strict=True))
    np.testing.assert_array_equal(got["logits"], wanted["logits"])
    assert all(isinstance(cache, DeviceArray) for cache in memories[1].values())

    memories = [
        runner.grow("decode", memory, {"batch": 2, "capacity": 9})
        for runner, memory in zip(runners, memories, strict=True)
    ]
    position = np.array([5, 3])
    for _ in range(3):
        feeds = {"input_ids": random.integers(31, size=(2, 1)), "position": position}
        wanted, got = (runner.step("decode", feeds, memory) for runner, memory in zip(runners, memories, strict=True))
        np.testing.assert_array_equal(got["logits"], wanted["logits"])
        position = position + 1
    for name, cache in memories[0].items():
        np.testing.assert_array_equal(np.asarray(memories[1][name]), cache)
    whole = {**feeds, **memories[0]}
    np.testing.assert_array_equal(runners[1].run("decode", whole)["logits"], runners[0].run("decode", whole)["logits"])
    with pytest.raises(AtinukeError, match="axis `batch` must be"):
        runners[1].step("decode", {**feeds, "position": np.zeros(65, np.int64)}, memories[1])

    assert len(driver.memory) == len(memories[1])
    memories.clear()
    assert not driver.memory  # what a call took is given back


def test_what_was_compiled_on_a_machine_is_kept(tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, HostDriver())
    for content in (b"fresh", b"known"):
        opened(tiny, folder)
        gc.collect()
        caches = sorted((folder.parent / "cache" / "atinuke").iterdir())
        assert [file.read_bytes() for file in caches] == [content] * len(tiny.programs)


def test_without_a_driver_one_line_says_so(tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, HostDriver())
    monkeypatch.setattr(cuda, "driver", lambda: None)
    with pytest.raises(NotHereError, match=r"has no NVIDIA driver: there is no (libcuda\.so\.1|nvcuda\.dll)"):
        opened(tiny, folder)


def test_a_driver_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "driver", lambda: HostDriver())
    with pytest.raises(AtinukeError, match="refuses: out of memory\n  cuMemAllocAsync: 2"):
        Cuda().empty((1 << 31,), "float32")
    monkeypatch.setattr(cuda, "driver", lambda: HostDriver(pools=0))
    with pytest.raises(NotHereError, match="no memory pools"):
        Cuda()


@pytest.mark.parametrize(("built", "later", "here", "runs"), [
    (86, False, 86, True),
    (86, False, 89, False),
    (86, True, 120, True),
    (86, True, 80, False),
])  # fmt: skip
def test_an_engine_for_another_capability_is_refused(
    tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch, built: int, later: bool, here: int, runs: bool
) -> None:
    write(folder, capability=built, later=later)
    pretend(monkeypatch, HostDriver(here))
    if runs:
        opened(tiny, folder)
        return
    with pytest.raises(NotHereError, match=f"this GPU has compute capability {here / 10}\n.*are for {built / 10}"):
        opened(tiny, folder)


def test_an_engine_of_another_version_is_refused(tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, version="1.6.0")
    pretend(monkeypatch, HostDriver())
    with pytest.raises(NotHereError, match=rf"are of tensorrt_rtx 1\.6\.0, and here is {VERSION}"):
        opened(tiny, folder)


def test_a_damaged_engine_is_refused(tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, HostDriver())
    file = folder / "decode.engine"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(AtinukeError, match=f"the engine is damaged: it has {len(whole) - 1} bytes of {len(whole)}"):
        opened(tiny, folder)
    file.write_bytes(b"damaged".ljust(len(whole)))
    with pytest.raises(AtinukeError, match="the engine is not valid here: MALFORMED_ENGINE"):
        opened(tiny, folder)
    file.rename(folder / "elsewhere")
    file.symlink_to(folder / "elsewhere")
    with pytest.raises(AtinukeError, match="there is no such engine"):
        opened(tiny, folder)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1 << 70) | st.text(max_size=9) | st.just("tensorrt_rtx"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)
KEYS = ("library", "version", "engines", "file", "size", "capabilities", "later", "decode")


@given(st.dictionaries(st.sampled_from(KEYS), PLAIN) | PLAIN)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_manifest_of_anything_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(AtinukeError):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../decode.engine", "/decode.engine", "a/b.engine", "decode.so", ""])
def test_an_engine_lies_in_the_folder(folder: Path, name: str) -> None:
    plain = json.loads((folder / MANIFEST).read_text())
    plain["engines"]["decode"][0]["file"] = name
    (folder / MANIFEST).write_text(json.dumps(plain))
    with pytest.raises(AtinukeError, match="must be a file's name"):
        read_manifest(folder)
