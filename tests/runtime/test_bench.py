"""The structure of a bench, never its times."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atinuke.core.errors import AtinukeError
from atinuke.runtime import bench, limits
from atinuke.runtime.alone import Alone, alone, peak
from atinuke.runtime.bench import EACH, FIRST, FORWARD, PREPARE, Task, Way, Work, calls, choose, compare, tasks
from atinuke.runtime.bundle import Bundle, write_config
from atinuke.runtime.interface import Array, Interface, Port, work_out
from atinuke.runtime.limits import Limits
from atinuke.runtime.runner import Runner
from tests.runtime.programs import AXES, ROWS, STEPS, bundle_of

SLOW = Limits(1, 1e6, 1e6)


class Zeros(Runner):
    """Gives zeros of the sizes that the interface promises, and remembers what it was called with."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.folder, bundle.programs, bundle.axes, "fp32")
        self.seen: list[tuple[str, Mapping[str, Array]]] = []

    def call(self, program: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.seen.append((program, dict(feeds)))
        interface = self.programs[program]
        sizes = interface.check(feeds, self.axes)
        return {
            port.name: np.zeros([work_out(str(size), {**sizes, "fixed": 3}) for size in port.shape], port.dtype)
            for port in interface.outputs
        }


def bundle(folder: Path, programs: dict[str, Interface]) -> Bundle:
    return Bundle(folder, "little", AXES, programs, None, {}, {}, ("onnx/fp32",))


def test_an_encoder_decoder_is_timed_by_encoder_first_token_and_each_token(tmp_path: Path) -> None:
    opened = bundle(tmp_path, STEPS)
    sizes = choose(opened, {"batch": 2, "sequence": 5})
    assert sizes == {"batch": 2, "sequence": 5, "source": 8, "capacity": 16}
    assert [(one.name, one.amount, one.unit) for one in tasks(opened, sizes, {})] == [
        (PREPARE, 2, "rows"),
        (FIRST, 10, "tokens"),
        (EACH, 2, "tokens"),
    ]
    runner = Zeros(opened)
    found = calls(opened, runner, sizes)
    runner.seen.clear()
    for task, programs in ((PREPARE, ["prepare"]), (FIRST, ["prepare", "prefill"]), (EACH, ["decode"])):
        assert isinstance(found[task](), np.ndarray)
        assert sorted(program for program, _ in runner.seen) == sorted(programs)
        if task == EACH:
            assert (runner.seen[-1][1]["position"] == 5).all(), "the token behind the prompt"
        runner.seen.clear()


def test_a_classifier_is_timed_by_its_one_call(tmp_path: Path) -> None:
    opened = bundle(tmp_path, ROWS)
    sizes = choose(opened, {})
    assert sizes == {"batch": 1, "sequence": 16, "fixed": 3}
    (task,) = tasks(opened, sizes, {"forward": Work(7, 5)})
    assert task == Task(FORWARD, 1, "rows", Work(7, 5))
    assert calls(opened, Zeros(opened), sizes)[FORWARD]().shape == (1, 4)


def test_the_work_of_a_first_token_is_that_of_encoder_and_text(tmp_path: Path) -> None:
    opened = bundle(tmp_path, STEPS)
    works = {"prepare": Work(1, 10), "prefill": Work(2, 20), "decode": Work(3, 30)}
    found = {task.name: task.work for task in tasks(opened, choose(opened, {}), works)}
    assert found == {PREPARE: Work(1, 10), FIRST: Work(3, 30), EACH: Work(3, 30)}


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ({"sequences": 3}, "no axis `sequences`"),
        ({"sequence": 17}, "axis `sequence` must be 1..16"),
        ({"source": 1}, "axis `source` must be 2..8"),
        ({"sequence": 8, "capacity": 4}, "caches are shorter"),
    ],
)
def test_a_size_that_cannot_be_is_refused_with_its_axis(tmp_path: Path, at: dict[str, int], told: str) -> None:
    with pytest.raises(AtinukeError, match=told):
        choose(bundle(tmp_path, STEPS), at)


def test_ways_take_turns_and_are_compared_with_the_first() -> None:
    order: list[str] = []

    def call(name: str, answer: float) -> Any:
        def run() -> Array:
            order.append(name)
            return np.array([1.0, answer], np.float32)

        return {"forward": run}

    running = {"a": call("a", 2.0), "b": call("b", 3.0)}
    ways = [Way("a", "fp32"), Way("gone", "fp32", why="no engine"), Way("b", "int8")]
    a, b = compare(ways, running, [Task("forward", 10, "rows", Work(10**9, 1))], 3, SLOW)
    assert order == ["a", "b"] * 4
    assert (a.way, b.way, a.ratio, a.difference, b.difference) == ("a", "b", 1.0, 0.0, 0.5)
    assert 0 < a.p50 <= a.p95 <= a.p99
    assert a.rate == pytest.approx(10 / (a.p50 / 1e3))
    assert a.limit == pytest.approx(1e9 / SLOW.gemm / (a.p50 / 1e3))
    assert b.limit is None, "nobody has measured what the machine computes in int8"


@pytest.mark.parametrize(
    ("precision", "task", "seconds"),
    [
        ("fp32", Task(EACH, 1, "tokens", Work(10, 10**6)), 4.0),
        ("int8", Task(EACH, 1, "tokens", Work(10**9, 10**6)), 1.0),
        ("int4-weights", Task(EACH, 1, "tokens", Work(10, 10**6)), 0.5),
        ("fp32", Task(FORWARD, 1, "rows", Work(10**7, 1)), 10.0),
        ("bf16", Task(FORWARD, 1, "rows", Work(10**7, 1)), None),
        ("a-plugins-own", Task(EACH, 1, "tokens", Work(10, 10**6)), None),
        ("fp32", Task(FORWARD, 1, "rows"), None),
    ],
)
def test_the_limit_is_the_longer_of_computing_and_reading(precision: str, task: Task, seconds: float | None) -> None:
    (figure,) = compare([Way("w", precision)], {"w": {task.name: lambda: np.ones(1)}}, [task], 1, SLOW)
    if seconds is None:
        assert figure.limit is None
    else:
        assert figure.limit is not None
        assert figure.limit * figure.p50 / 1e3 == pytest.approx(seconds)


def test_a_bundle_is_benched_and_what_cannot_run_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure", lambda threads: Limits(threads, 1e9, 1e9))
    opened = bundle_of(tmp_path / "b", ROWS, "onnx/fp32", "onnx/fp16")
    (opened.place("onnx/fp16") / "forward.onnx").write_bytes(b"damaged")
    write_config(opened)
    report = bench.bench_bundle(opened, opened.builds, {"batch": 2}, 2, 1)
    good, bad = report.ways
    assert good.why is None
    assert good.load is not None
    assert good.memory is not None
    assert good.load > 0
    assert 2**20 < good.memory < 2**34
    assert bad.why is not None
    assert "ONNX Runtime cannot open it" in bad.why
    assert [(one.way, one.task, one.unit) for one in report.figures] == [("onnx/fp32", FORWARD, "rows")]
    assert (report.sizes["batch"], report.rounds, report.limits.threads) == (2, 2, 1)
    with pytest.raises(AtinukeError, match="no `onnx/fp8`"):
        bench.bench_bundle(opened, ["onnx/fp8"], {}, 1, 1)


def test_an_engine_that_crashes_takes_only_its_own_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    crashed = subprocess.CompletedProcess([], -11, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: crashed)
    assert alone(tmp_path, "onnx/fp32", {}, None) == "its engine crashed (signal 11)"


def test_the_limits_are_measured_in_a_process_that_ends() -> None:
    found = limits.measure(1, rounds=1)
    assert found.threads == 1
    assert 1e8 < found.gemm < 1e14
    assert 1e8 < found.memory < 1e13


def test_the_peak_of_memory_is_this_process_own() -> None:
    found = peak()
    assert found is None or found > 2**24
    assert Alone(1.0, found).memory == found


def test_numbers_are_such_as_every_vocabulary_has() -> None:
    random = np.random.default_rng(0)
    ids = bench._value(Port("input_ids", "int64", ("batch", 64)), {"batch": 2}, random)
    assert set(np.unique(ids)) == {0, 1}


def test_a_process_that_says_nothing_is_told_by_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 3, "", " \n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert alone(tmp_path, "onnx/fp32", {}, None) == "its process ended with code 3, and said nothing"
