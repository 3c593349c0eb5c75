"""OpenVINO's files say what the model says, in the precision that they state and no other."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed")

from atinuke.compile.backends.openvino import OpenVINOBuilder
from atinuke.compile.samples import draw
from atinuke.core.errors import AtinukeError
from atinuke.runtime.openvino import HINT, WIDTH, OpenVINORunner
from atinuke.runtime.runner import NotHereError
from atinuke.runtime.signal_stack import signal_stack
from tests.compile.deploying import Tiny, feeds_of

SIZES = {"batch": 2, "capacity": 5}


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return Tiny("experts", only=["decode"])  # whose experts OpenVINO once gave a wrong shape


@pytest.fixture(scope="module")
def folders(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {precision: tmp_path_factory.mktemp(precision) for precision in ("fp32", "bf16")}
    for precision, folder in found.items():
        OpenVINOBuilder().build(tiny.work(precision), folder)
    return found


def opened(tiny: Tiny, folder: Path, threads: int = 1) -> OpenVINORunner:
    return OpenVINORunner(folder, tiny.interfaces, tiny.axes, "fp32", threads)


def test_what_it_says_is_what_the_model_says(tiny: Tiny, folders: dict[str, Path]) -> None:
    assert tiny.worst(opened(tiny, folders["fp32"]), 0, 3) < 1e-5
    try:
        runner = opened(tiny, folders["bf16"])
    except NotHereError as told:
        pytest.skip(str(told))
    assert 1e-4 < tiny.worst(runner, 0, 3) < 5e-2  # below that it would not be bf16


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's stack_t")
def test_signals_are_handled_where_they_were_before(tiny: Tiny, folders: dict[str, Path]) -> None:
    """OpenVINO's plug-in takes a stack of its own for signals and frees it with itself."""
    before = signal_stack()
    opened(tiny, folders["fp32"])
    after = signal_stack()
    assert (after.sp, after.flags, after.size) == (before.sp, before.flags, before.size)


def test_a_step_writes_caches_where_the_next_reads_them(tiny: Tiny, folders: dict[str, Path]) -> None:
    runner, other = opened(tiny, folders["fp32"]), opened(tiny, folders["fp32"])
    program = tiny.programs["decode"]
    feeds = feeds_of(program, draw(tiny.checked, program, SIZES))
    fresh = {name: array for name, array in feeds.items() if name not in program.interface.memory}
    memory = runner.begin("decode", SIZES)
    copied = {name: array.copy() for name, array in memory.items()}
    places: list[set[int]] = []
    for at in range(4):
        fresh["position"] = np.array([at, at // 2])
        wanted = other.run("decode", {**fresh, **copied})
        copied = {name: wanted[output] for name, output in program.interface.memory.items()}
        got = runner.step("decode", fresh, memory)
        np.testing.assert_array_equal(got["logits"], wanted["logits"])
        for name, cache in copied.items():
            np.testing.assert_array_equal(memory[name], cache)
        places.append({array.ctypes.data for array in memory.values()})
        kept = {name: array.copy() for name, array in memory.items()}
        runner.run("decode", feeds)  # which must not write where the memory is
        for name, cache in kept.items():
            np.testing.assert_array_equal(memory[name], cache)
    assert len(places[0]) == len(memory)


def test_steps_take_turns_with_the_same_memory(tiny: Tiny, folders: dict[str, Path]) -> None:
    runner = opened(tiny, folders["fp32"])
    program = tiny.programs["decode"]
    feeds = feeds_of(program, draw(tiny.checked, program, SIZES))
    fresh = {name: array for name, array in feeds.items() if name not in program.interface.memory}
    memory = runner.begin("decode", SIZES)
    places = []
    for _ in range(4):
        runner.step("decode", fresh, memory)
        places.append({name: array.ctypes.data for name, array in memory.items()})
    assert places[0] == places[2] != places[1] == places[3]


def test_int8_rounds_activations_too_where_the_file_says_so(tmp_path: Path) -> None:
    wide = Tiny("gpt2", "d_model=128", only=["decode"])
    OpenVINOBuilder().build(wide.work("int8"), tmp_path)
    rounded = wide.worst(opened(wide, tmp_path), 3)
    restate(tmp_path / "decode.xml", WIDTH, "0")
    assert 1e-4 < wide.worst(opened(wide, tmp_path), 3) != rounded < 5e-2


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Path:
    for file in folders["fp32"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_a_precision_that_this_cpu_lacks_is_refused(tiny: Tiny, copy: Path) -> None:
    from openvino import Core

    if "FP16" in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has fp16")
    restate(copy / "decode.xml", HINT, "f16")
    with pytest.raises(NotHereError, match=r"this CPU cannot compute in f16; OpenVINO would take (bf16|f32)"):
        opened(tiny, copy)


def test_a_damaged_file_is_refused(tiny: Tiny, copy: Path) -> None:
    restate(copy / "decode.xml", WIDTH, "many")
    with pytest.raises(AtinukeError, match="OpenVINO cannot open it"):
        opened(tiny, copy)
    file = copy / "decode.xml"
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(AtinukeError, match="OpenVINO cannot open it"):
        opened(tiny, copy)
    (copy / "decode.bin").unlink()
    with pytest.raises(AtinukeError, match=r"no \.bin beside it"):
        opened(tiny, copy)


def restate(file: Path, setting: str, value: str) -> None:
    text = file.read_text()
    start = text.index(f"<{setting} ")
    file.write_text(f'{text[:start]}<{setting} value="{value}" />{text[text.index("/>", start) + 2 :]}')
