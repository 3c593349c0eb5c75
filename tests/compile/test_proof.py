"""What is deployed wrongly is caught and named; what a half precision cannot hold is kept in float32."""

from pathlib import Path

import pytest
import torch

from atinuke.compile.builder import Work
from atinuke.compile.certificate import Reference
from atinuke.compile.module import build
from atinuke.compile.programs import programs
from atinuke.compile.proof import WIDE, Target, prove
from atinuke.compile.samples import draw, example
from atinuke.core.errors import AtinukeError
from atinuke.runtime.parity import FAILED, PASSED, Build
from tests.compile.faults import WRONG_AT, MemoryBuilder, faulty

LINE = "faulty.yaml:11"


def proved(fault: str, precision: str, folder: Path, seconds: float = 60) -> tuple[Build, MemoryBuilder]:
    torch.manual_seed(0)
    checked = faulty(fault)
    made = programs(checked, build(checked))
    inputs = {name: draw(checked, program, example(program.axes)) for name, program in made.items()}
    builder = MemoryBuilder()
    target = Target(f"memory/{precision}", builder, builder.open_runner)
    work = Work(made, inputs, precision)
    return prove(target, work, Reference(checked, made), folder, seconds, lambda what, done, of: None), builder


def test_what_is_wrong_at_one_length_only_is_caught_and_named(tmp_path: Path) -> None:
    found, _ = proved("off", "fp32", tmp_path)
    assert found.status == FAILED
    assert found.blame is not None
    assert found.blame.startswith(f"stack.0.N (faults:fault.off), {LINE}: error ")
    wrong = {call.sizes["sequence"] for call in found.calls if call.status(found.budget) == FAILED}
    assert wrong == {WRONG_AT}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_build_of_which_nothing_was_compared_is_refused(tmp_path: Path, precision: str) -> None:
    told = f"nothing of memory/{precision} could be compared: would take about .* s are left\n.*allow more --minutes"
    with pytest.raises(AtinukeError, match=told):
        proved("large", precision, tmp_path, seconds=-1)


def test_a_norm_that_overflows_in_half_is_kept_in_float32(tmp_path: Path) -> None:
    found, builder = proved("large", "fp16", tmp_path)
    assert found.status == PASSED
    (kept,) = found.kept
    assert (kept.node, "e-" in kept.after) == ("stack.*.N", True)
    assert builder.built[-1] == {"stack.0.N", "stack.1.N"}
    assert len(builder.built) == 1  # torch had told


def test_what_float32_around_it_does_not_help_is_refused(tmp_path: Path) -> None:
    found, builder = proved("half", "fp16", tmp_path)
    assert found.status == FAILED
    assert found.blame is not None
    assert found.blame.startswith(f"stack.0.N (faults:fault.half), {LINE}: ")
    assert found.blame.endswith(WIDE)
    assert builder.built == [{"stack.0.N", "stack.1.N"}] * 2  # torch had told; and with taps


def test_an_engine_that_narrows_by_itself_has_no_islands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryBuilder, "islands", ("bf16",))
    found, builder = proved("large", "fp16", tmp_path)
    assert (found.status, found.kept) == (FAILED, ())
    assert not any(builder.built)
