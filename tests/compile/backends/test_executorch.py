"""An ExecuTorch file says what the model says, and what it cannot run is refused in words."""

from pathlib import Path

import pytest

from atinuke.core.errors import AtinukeError
from atinuke.runtime.executorch import FILE, ExecutorchRunner
from tests.compile.deploying import Tiny

pytest.importorskip("executorch", reason="needs the extra `executorch`")


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-5), ("int8", 3e-2)])
def test_an_encoder_at_several_sizes(tmp_path: Path, precision: str, most: float) -> None:
    from atinuke.compile.backends.executorch import ExecutorchBuilder

    tiny = Tiny("encoder", "batch=1..4", "sequence=1..16")
    ExecutorchBuilder().build(tiny.work(precision), tmp_path)
    runner = ExecutorchRunner(tmp_path, tiny.interfaces, tiny.axes, precision)
    worst = tiny.worst(runner, 0, 1, 2)
    assert worst < most
    assert precision == "fp32" or worst > 1e-4  # it is quantised at all


@pytest.mark.parametrize("content", [None, b"", b"no program", bytes(4096)])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(AtinukeError, match="ExecuTorch cannot open it"):
        ExecutorchRunner(tmp_path, {"forward": None}, {}, "fp32")
