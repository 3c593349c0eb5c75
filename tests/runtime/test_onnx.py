"""ONNX Runtime under the runner: caches in place are those that are copied, programs and threads do not disturb each
other."""

import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from atinuke.compile.backends.onnx import OnnxBuilder
from atinuke.compile.samples import draw
from atinuke.core.errors import AtinukeError
from atinuke.runtime.interface import Array
from atinuke.runtime.onnx import IN_PLACE, OnnxRunner
from tests.compile.deploying import Tiny

Answers = list[Array]


@pytest.fixture(scope="module")
def decoder() -> Tiny:
    return Tiny("gpt2")


@pytest.fixture(scope="module")
def folder(decoder: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    OnnxBuilder().build(decoder.work("fp32"), folder)
    return folder


def opened(decoder: Tiny, folder: Path, threads: int | None = 1) -> OnnxRunner:
    return OnnxRunner(folder, decoder.interfaces, decoder.axes, "fp32", threads)


def text(runner: OnnxRunner, seed: int, steps: int = 6) -> Answers:
    """What comes out of a prompt of three rows and some steps."""
    rng = np.random.default_rng(seed)
    memory = runner.begin("prefill", {"batch": 3, "capacity": 16})
    ids = rng.integers(0, 31, (3, 5))
    start = {"input_ids": ids, "position": np.zeros(3, np.int64), "last": np.array([4, 2, 0])}
    found = [runner.step("prefill", start, memory)["logits"]]
    for i in range(steps):
        feeds = {"input_ids": rng.integers(0, 31, (3, 1)), "position": np.array([5, 3, 1]) + i}
        found.append(runner.step("decode", feeds, memory)["logits"])
    return [*found, *memory.values()]


def unmarked(folder: Path, to: Path) -> Path:
    """The same files without the word that caches may be written into."""
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    for file in to.glob("*.onnx"):
        model = onnx.load(file, load_external_data=False)
        kept = [entry for entry in model.metadata_props if entry.key != IN_PLACE]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        file.write_bytes(model.SerializeToString())
    return to


def same(one: Answers, other: Answers) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_caches_in_place_equal_copied_ones(decoder: Tiny, folder: Path, tmp_path: Path) -> None:
    in_place, copied = opened(decoder, folder), opened(decoder, unmarked(folder, tmp_path))
    assert same(text(in_place, 0), text(copied, 0))
    assert not same(text(in_place, 0), text(in_place, 1))

    for runner, stays in ((in_place, True), (copied, False)):
        memory = runner.begin("decode", {"batch": 2, "capacity": 8})
        before = dict(memory)
        runner.step("decode", {"input_ids": np.ones((2, 1), np.int64), "position": np.array([3, 0])}, memory)
        for name, array in memory.items():
            assert (array is before[name]) == stays
            assert np.abs(array[0, :, 3]).min() > 0
            assert not array[0, :, :3].any()
            assert before[name].any() == stays


def test_run_leaves_its_inputs_as_they_are(decoder: Tiny, folder: Path) -> None:
    runner, program = opened(decoder, folder), decoder.programs["decode"]
    inputs = draw(decoder.checked, program, decoder.sizes("decode"))
    feeds = {port.name: tensor.numpy() for port, tensor in zip(program.interface.inputs, inputs, strict=True)}
    before = {name: array.copy() for name, array in feeds.items()}
    found = runner.run("decode", feeds)
    assert all(np.array_equal(feeds[name], array) for name, array in before.items())
    memory = {name: feeds[name] for name in program.interface.memory}
    answers = runner.step("decode", {name: feeds[name] for name in feeds.keys() - memory.keys()}, memory)
    assert np.array_equal(answers["logits"], found["logits"])
    assert all(np.array_equal(memory[name], found[output]) for name, output in program.interface.memory.items())


def test_arrays_that_cannot_be_written_are_replaced(decoder: Tiny, folder: Path) -> None:
    runner = opened(decoder, folder)
    feeds = {"input_ids": np.ones((2, 1), np.int64), "position": np.array([1, 0])}
    wide = {
        name: np.zeros((4, *array.shape[1:]), array.dtype)
        for name, array in runner.begin("decode", {"batch": 2, "capacity": 8}).items()
    }
    memory = {name: array[::2] for name, array in wide.items()}
    fresh = runner.begin("decode", {"batch": 2, "capacity": 8})
    assert np.array_equal(runner.step("decode", feeds, memory)["logits"], runner.step("decode", feeds, fresh)["logits"])
    assert all(np.array_equal(memory[name], fresh[name]) for name in fresh)
    assert not any(array.any() for array in wide.values())


def test_programs_have_their_weights_in_common(decoder: Tiny, folder: Path) -> None:
    weights = (folder / "weights.bin").stat().st_size
    assert all((folder / f"{name}.onnx").stat().st_size < weights for name in decoder.programs)
    places = []
    for name in decoder.programs:
        stored = onnx.load(folder / f"{name}.onnx", load_external_data=False).graph.initializer
        held = [{entry.key: entry.value for entry in tensor.external_data} for tensor in stored]
        places.append({(one["offset"], one["length"]) for one in held if one})
    assert places[0] == places[1] != set()


def test_two_runners_do_not_disturb_each_other(decoder: Tiny, folder: Path) -> None:
    one, other = opened(decoder, folder), opened(decoder, folder)
    expected = [text(one, seed) for seed in range(2)]
    first = one.begin("decode", {"batch": 1, "capacity": 4})
    second = other.begin("decode", {"batch": 1, "capacity": 4})
    feeds = {"input_ids": np.ones((1, 1), np.int64), "position": np.zeros(1, np.int64)}
    one.step("decode", feeds, first)
    assert not any(array.any() for array in second.values())
    assert [same(text(other, seed), expected[seed]) for seed in range(2)] == [True, True]


def test_threads_may_share_a_runner(decoder: Tiny, folder: Path) -> None:
    runner = opened(decoder, folder, None)
    expected = [text(runner, seed) for seed in range(4)]
    found: dict[int, Answers] = {}
    threads = [threading.Thread(target=lambda seed=seed: found.update({seed: text(runner, seed)})) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(found[seed], expected[seed]) for seed in range(4))


def test_the_number_of_threads_is_what_was_asked_for(decoder: Tiny, folder: Path) -> None:
    runner = opened(decoder, folder, 1)
    options = runner._sessions["decode"].get_session_options()
    assert options.intra_op_num_threads == 1


def test_a_step_checks_its_feeds(decoder: Tiny, folder: Path) -> None:
    runner = opened(decoder, folder)
    memory = runner.begin("decode", {"batch": 2, "capacity": 8})
    with pytest.raises(AtinukeError, match="axis `batch` has two sizes"):
        runner.step("decode", {"input_ids": np.ones((3, 1), np.int64), "position": np.zeros(3, np.int64)}, memory)
    assert not any(array.any() for array in memory.values())


def test_a_damaged_file_is_one_clear_error(decoder: Tiny, folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:200])
    with pytest.raises(AtinukeError, match="ONNX Runtime cannot open it"):
        opened(decoder, tmp_path)
