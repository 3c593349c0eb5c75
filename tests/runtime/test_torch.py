"""Programs run by torch: caches in the precision of the build, written in place, and never anything but caches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from atinuke.compile.in_place import in_place
from atinuke.compile.precision import HALVES, narrow
from atinuke.compile.samples import draw
from atinuke.core.errors import AtinukeError
from atinuke.runtime.torch import TorchRunner
from tests.compile.deploying import Tiny, feeds_of

TOLERANCE = {"fp32": 1e-6, "bf16": 3e-2, "fp16": 4e-3}


class Eager(TorchRunner):
    """The programs as they are."""

    def __init__(self, tiny: Tiny, precision: str) -> None:
        super().__init__(Path(), tiny.interfaces, tiny.axes, precision)
        made = tiny.programs
        if precision in HALVES:
            made = {name: narrow(program, HALVES[precision]) for name, program in made.items()}
        self.modules = {name: in_place(program).module for name, program in made.items()}

    @torch.no_grad()
    def invoke(self, program, inputs):
        return self.modules[program](*inputs)


@pytest.fixture(scope="module", params=["gpt2", "encoder-decoder"])
def tiny(request) -> Tiny:
    return Tiny(request.param)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_a_call_says_what_the_model_says(tiny: Tiny, precision: str) -> None:
    runner = Eager(tiny, precision)
    for name, program in tiny.programs.items():
        inputs = draw(tiny.checked, program, tiny.sizes(name))
        with torch.no_grad():
            wanted = program.module(*inputs)
        feeds = feeds_of(program, inputs)
        before = {name: array.copy() for name, array in feeds.items()}
        got = runner.run(name, feeds)
        assert list(got) == [port.name for port in program.interface.outputs]
        for one, expected in zip(got.values(), wanted, strict=True):
            assert one.dtype == np.float32 or not expected.is_floating_point()
            scale = expected.double().abs().max().item()
            np.testing.assert_allclose(one, expected.numpy(), rtol=0, atol=TOLERANCE[precision] * scale)
        for key, array in feeds.items():
            np.testing.assert_array_equal(array, before[key])  # `run` changes nothing that it is given


@pytest.mark.parametrize("precision", TOLERANCE)
def test_steps_in_place_equal_calls(tiny: Tiny, precision: str) -> None:
    runner = Eager(tiny, precision)
    sizes = {**tiny.sizes("prefill"), "batch": 2, "capacity": 9}
    memory = runner.begin("prefill", sizes)
    places = {name: array.__array_interface__["data"] for name, array in memory.items()}
    outside = {name: np.zeros(array.shape, np.float32) for name, array in memory.items()}
    for turn in range(3):
        name = "decode" if turn else "prefill"
        program = tiny.programs[name]
        feeds = feeds_of(program, draw(tiny.checked, program, sizes, seed=turn))
        feeds["position"][:] = turn and sizes["sequence"] + turn - 1
        fresh = {key: array for key, array in feeds.items() if key not in memory}
        stepped = runner.step(name, fresh, memory)
        called = runner.run(name, {**fresh, **outside})
        outside = {old: called.pop(new) for old, new in program.interface.memory.items()}
        assert {*stepped} == {*called}
        for key, array in called.items():
            np.testing.assert_array_equal(stepped[key], array)
    assert {name: array.__array_interface__["data"] for name, array in memory.items()} == places
    assert all(array.any() for array in memory.values())


def test_what_is_no_cache_is_refused(tiny: Tiny) -> None:
    runner = Eager(tiny, "bf16")
    program = tiny.programs["decode"]
    sizes = {**tiny.sizes("decode"), "batch": 2, "capacity": 4}
    feeds = feeds_of(program, draw(tiny.checked, program, sizes))
    memory = runner.begin("decode", sizes)
    fresh = {key: array for key, array in feeds.items() if key not in memory}
    one = next(iter(memory))
    wide = memory[one].astype(np.float32)
    reversed_ = memory[one][..., ::-1]
    for wrong in (wide, reversed_):
        with pytest.raises(AtinukeError, match="is no cache of this model"):
            runner.step("decode", fresh, {**memory, one: wrong})
    with pytest.raises(AtinukeError, match="axis `capacity` has two sizes"):
        runner.step("decode", fresh, {**memory, one: np.repeat(memory[one], 2, axis=-2)})


def test_inputs_may_lie_anyhow_in_memory(tiny: Tiny) -> None:
    runner = Eager(tiny, "fp32")
    program = tiny.programs["decode"]
    feeds = feeds_of(program, draw(tiny.checked, program, {**tiny.sizes("decode"), "batch": 2}))
    expected = runner.run("decode", feeds)
    strange = {key: np.asfortranarray(array) for key, array in feeds.items()}
    for array in strange.values():
        array.flags.writeable = False
    for key, array in runner.run("decode", strange).items():
        np.testing.assert_array_equal(array, expected[key])
