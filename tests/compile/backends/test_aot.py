"""A package of native code says what the model says, in calls and in steps that write into their caches."""

from pathlib import Path

import numpy as np
import pytest
from torch._inductor import config

from atinuke.compile.backends.aot import AotBuilder
from atinuke.compile.samples import draw
from atinuke.core.errors import AtinukeError
from atinuke.runtime.aot import AotRunner
from tests.compile.deploying import Tiny, feeds_of

QUICK = {  # g++ spends its time on the program, not on headers that nothing else would share
    "aot_inductor.precompile_headers": False,
    "aot_inductor.compile_wrapper_opt_level": "O0",
}


@pytest.mark.slow
def test_a_decoder_step_in_half_precision(tmp_path: Path) -> None:
    tiny = Tiny("gpt2", only=["decode"])
    with config.patch(QUICK):
        AotBuilder().build(tiny.work("bf16"), tmp_path)
    runner = AotRunner(tmp_path, tiny.interfaces, tiny.axes, "bf16")
    assert tiny.worst(runner, 0, 3) < 2e-2

    program = tiny.programs["decode"]
    feeds = feeds_of(program, draw(tiny.checked, program, {"batch": 2, "capacity": 5}))
    memory = runner.begin("decode", {"batch": 2, "capacity": 5})
    fresh = {name: array for name, array in feeds.items() if name not in memory}
    called = runner.run("decode", {**fresh, **{name: np.zeros_like(feeds[name]) for name in memory}})
    np.testing.assert_array_equal(runner.step("decode", fresh, memory)["logits"], called["logits"])
    assert all(array.any() for array in memory.values())

    with pytest.raises(AtinukeError, match="axis `batch` must be"):  # which the package itself would not notice
        runner.step("decode", {**fresh, "position": np.zeros(65, np.int64)}, memory)
    with pytest.raises(AtinukeError, match="input `position` must be int64"):
        runner.step("decode", {**fresh, "position": np.zeros(2, np.int32)}, memory)
