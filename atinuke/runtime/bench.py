"""Latency of the builds of a bundle, side by side: every round calls each of them once, so that what else the machine
does meanwhile meets all alike."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atinuke.core.errors import AtinukeError, fail
from atinuke.core.names import close
from atinuke.runtime.alone import alone
from atinuke.runtime.bundle import Bundle
from atinuke.runtime.interface import BATCH, CAPACITY, Array, Interface, Port, axes_of, work_out
from atinuke.runtime.limits import Limits, cores, measure
from atinuke.runtime.runner import Runner

USUAL = 128  # the size of an axis that nobody chose
ROOM = 64  # positions of a cache beyond the prompt

FORWARD, PREPARE, FIRST, EACH = "forward", "prepare", "first token", "each token"
WEIGHT_BYTES = {
    "fp32": 4,
    "fp16": 2,
    "bf16": 2,
    "fp8": 1,
    "int8": 1,
    "int8-weights": 1,
    "int4-weights": 0.5,
}

Call = Callable[[], Array]
Calls = Mapping[str, Call]


@dataclass(frozen=True)
class Task:
    """What is timed: how much one call gets done, of what (`tokens`, `rows`), and its work where that is known."""

    name: str
    amount: int
    unit: str
    work: "Work | None" = None


@dataclass(frozen=True)
class Work:
    """FLOPs of a call, and how many weights its matrix products read."""

    flops: int
    weights: int

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.weights + other.weights)


@dataclass(frozen=True)
class Way:
    """One way to do the tasks. `load` is in seconds, and `memory` in bytes is the peak of a process that did nothing
    else; `why` says what keeps it from running here."""

    name: str
    precision: str
    load: float | None = None
    memory: int | None = None
    why: str | None = None


@dataclass(frozen=True)
class Figure:
    """One way at one task. Times of a call are in milliseconds; `rate` is amounts a second at the median. `ratio` is
    how many times faster it is than the first way (the median of the ratios within a round), and `difference` how far
    the answer is from that way's, as a share of the largest value there. `first_call` is in seconds. `limit` is the
    share of what the machine can do: the least time that the work can take, of the median."""

    way: str
    task: str
    unit: str
    p50: float
    p95: float
    p99: float
    rate: float
    ratio: float
    difference: float
    first_call: float
    limit: float | None


@dataclass(frozen=True)
class Report:
    """All that was measured of `subject` at `sizes`, in so many rounds."""

    subject: str
    sizes: Mapping[str, int]
    rounds: int
    limits: Limits
    ways: tuple[Way, ...]
    figures: tuple[Figure, ...]


def compare(
    ways: Iterable[Way], calls: Mapping[str, Calls], tasks: Iterable[Task], rounds: int, limits: Limits
) -> Iterator[Figure]:
    """Times every task in interleaved rounds, after one call of each way that is told apart (`first_call`). `calls` are
    those of the ways that run here."""
    ways = [way for way in ways if way.name in calls]
    for task in tasks:
        answers, first = {}, {}
        for way in ways:
            begin = time.perf_counter()
            answers[way.name] = calls[way.name][task.name]()
            first[way.name] = time.perf_counter() - begin
        seconds: dict[str, list[float]] = {way.name: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                begin = time.perf_counter()
                calls[way.name][task.name]()
                seconds[way.name].append(time.perf_counter() - begin)
        for way in ways:
            p50, p95, p99 = np.percentile(seconds[way.name], (50, 95, 99)).tolist()
            yield Figure(
                way.name,
                task.name,
                task.unit,
                p50 * 1e3,
                p95 * 1e3,
                p99 * 1e3,
                task.amount / p50,
                statistics.median(a / b for a, b in zip(seconds[ways[0].name], seconds[way.name], strict=True)),
                _difference(answers[way.name], answers[ways[0].name]),
                first[way.name],
                None if (least := _least(task, way, limits)) is None else least / p50,
            )


def _least(task: Task, way: Way, limits: Limits) -> float | None:
    """The seconds in which this machine could compute a task, or read its weights, whichever takes longer. What it
    computes in narrower numbers was not measured, so there it is known only of single tokens, which wait for memory."""
    if task.work is None or way.precision not in WEIGHT_BYTES or (way.precision != "fp32" and task.name != EACH):
        return None
    reading = task.work.weights * WEIGHT_BYTES[way.precision] / limits.memory
    return max(reading, task.work.flops / limits.gemm) if way.precision == "fp32" else reading


def _difference(answer: Array, base: Array) -> float:
    wide, expected = answer.astype(np.float64), base.astype(np.float64)
    return float(np.abs(wide - expected).max() / (np.abs(expected).max() or 1.0))


def bench_bundle(
    bundle: Bundle,
    builds: Sequence[str],
    at: Mapping[str, int],
    rounds: int,
    threads: int | None,
    count: Callable[[Bundle, Mapping[str, int]], Mapping[str, Work]] | None = None,
) -> Report:
    """Measures the builds at the sizes `at`, in so many threads (None: each engine takes as many as it likes). `count`
    tells the work in each program at given sizes; without it there are no shares of the limit.

    Raises:
        AtinukeError: there is no such build, or an axis cannot have that size.
    """
    sizes = choose(bundle, at)
    works = count(bundle, sizes) if count else {}
    limits = measure(threads or cores())
    ways, running = bundle_ways(bundle, builds, sizes, threads)
    figures = tuple(compare(ways, running, tasks(bundle, sizes, works), rounds, limits))
    return Report(bundle.name, sizes, rounds, limits, tuple(ways), figures)


def bundle_ways(
    bundle: Bundle, builds: Sequence[str], sizes: Mapping[str, int], threads: int | None
) -> tuple[list[Way], dict[str, Calls]]:
    """The builds as ways, and the calls of those that run here. Each was first loaded and run in a process of its own,
    so an engine that crashes takes nothing with it.

    Raises:
        AtinukeError: the bundle has no such build.
    """
    for build in builds:
        if build not in bundle.builds:
            raise fail(f"the bundle has no `{build}`", where=str(bundle.folder), fix=close(build, bundle.builds))
    ways, running = [], dict[str, Calls]()
    for build in builds:
        found = alone(bundle.folder, build, sizes, threads)
        if not isinstance(found, str):
            try:
                running[build] = calls(bundle, bundle.runner(build, threads), sizes)
            except AtinukeError as error:
                found = str(error)
        precision = build.rpartition("/")[2]
        if isinstance(found, str):
            ways.append(Way(build, precision, why=found))
        else:
            ways.append(Way(build, precision, found.load, found.memory))
    return ways, running


def choose(bundle: Bundle, at: Mapping[str, int]) -> dict[str, int]:
    """A size for every axis of what comes from outside: the chosen one, or one row, or 128 as far as the axis allows;
    a cache has 64 positions beyond the text.

    Raises:
        AtinukeError: there is no such axis, or it cannot have that size.
    """
    between = _between(bundle)
    ports = [port for one in bundle.programs.values() for port in one.inputs if port.name not in between]
    free = frozenset[str]().union(*(axes_of(size) for port in ports for size in port.shape))
    axes = {name: axis for name, axis in bundle.axes.items() if name in free}
    for name, size in at.items():
        if name not in axes:
            raise fail(f"there is no axis `{name}`", where=f"--at {name}={size}", fix=close(name, axes))
        low, high = axes[name]
        if not low <= size <= high:
            raise fail(f"axis `{name}` must be {low}..{high}", f"got {size}", where=f"--at {name}={size}")
    sizes = {
        name: at.get(name, low if name == BATCH else min(high, max(low, USUAL))) for name, (low, high) in axes.items()
    }
    if CAPACITY in sizes and CAPACITY not in at:
        sizes[CAPACITY] = min(axes[CAPACITY][1], sizes.get("sequence", 1) + ROOM)
    if sizes.get(CAPACITY, 0) < sizes.get("sequence", 0) and CAPACITY in sizes:
        raise fail("the caches are shorter than the text", f"got {sizes}", where="--at", fix="leave out capacity")
    return sizes


def tasks(bundle: Bundle, sizes: Mapping[str, int], works: Mapping[str, Work]) -> list[Task]:
    """What can be timed. `first token` is a text read to its end, encoder included; `each token` one step after it.
    `works` are those of the programs, where they are known."""
    rows = sizes.get(BATCH, 1)
    if "forward" in bundle.programs:
        return [Task(FORWARD, rows, "rows", works.get("forward"))]
    found = []
    first = works.get("prefill")
    if "prepare" in bundle.programs:
        found.append(Task(PREPARE, rows, "rows", works.get("prepare")))
        first = first and first + works["prepare"]
    found.append(Task(FIRST, rows * sizes["sequence"], "tokens", first))
    return [*found, Task(EACH, rows, "tokens", works.get("decode"))]


def calls(bundle: Bundle, runner: Runner, sizes: Mapping[str, int]) -> Calls:
    """The tasks as calls that give the program's first output."""
    between = _between(bundle)
    random = np.random.default_rng(0)
    feeds = {
        name: {port.name: _value(port, sizes, random) for port in one.given if port.name not in between}
        for name, one in bundle.programs.items()
    }
    answer = {name: one.outputs[0].name for name, one in bundle.programs.items()}
    if "forward" in bundle.programs:
        return {FORWARD: lambda: runner.run("forward", feeds["forward"])[answer["forward"]]}

    behind = min(sizes["sequence"], sizes[CAPACITY] - 1)
    feeds["decode"]["position"] = np.full_like(feeds["decode"]["position"], behind)

    def prepare() -> dict[str, Array]:
        return runner.run("prepare", feeds["prepare"]) if between else {}

    def first() -> Array:
        memory = runner.begin("prefill", sizes)
        return runner.step("prefill", {**feeds["prefill"], **prepare()}, memory)[answer["prefill"]]

    prepared = prepare()
    memory = runner.begin("prefill", sizes)
    runner.step("prefill", {**feeds["prefill"], **prepared}, memory)

    def each() -> Array:
        return runner.step("decode", {**feeds["decode"], **prepared}, memory)[answer["decode"]]

    found: dict[str, Call] = {FIRST: first, EACH: each}
    return {PREPARE: lambda: prepare()[answer["prepare"]], **found} if between else found


def _between(bundle: Bundle) -> set[str]:
    """What one program gives another."""
    return {port.name for port in bundle.programs.get("prepare", Interface((), (), {})).outputs}


def _value(port: Port, sizes: Mapping[str, int], random: np.random.Generator) -> Array:
    """Masks hide nothing; numbers are 0 and 1, which every vocabulary has."""
    shape = [work_out(str(size), sizes) for size in port.shape]
    if port.name == "last":
        return np.full(shape, sizes["sequence"] - 1, port.dtype)
    if port.name == "position":
        return np.zeros(shape, port.dtype)
    if port.dtype == "bool":
        return np.ones(shape, port.dtype)
    if np.dtype(port.dtype).kind == "f":
        return random.standard_normal(shape).astype(port.dtype)
    return random.integers(256 if port.dtype == "uint8" else 2, size=shape).astype(port.dtype)
