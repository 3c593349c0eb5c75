"""Size, speed and the run's own figure of every build beside the model, for bundles that hold a quantised build.

The figure is the run's own (`figure.py`), of the model and of each build over the same rows, through the same programs.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from atinuke.compile.certificate import EagerRunner
from atinuke.compile.programs import Program
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.deployed_model import DeployedModel
from atinuke.pipelines.figure import GROUP, NONE, Figure, Test, find_test
from atinuke.pipelines.run import Trained
from atinuke.runtime import bench
from atinuke.runtime.bundle import WEIGHTS, Bundle
from atinuke.runtime.parity import NOT_RUN, Parity
from atinuke.runtime.quality import QUANTISED, Measured, Quality
from atinuke.runtime.runner import Runner

SECONDS = 60.0
ROUNDS, PACE = (5, 50), 2.0  # of calls in turn: at least, at most, and about so many seconds
NO_RUN = "no run: arithmetic error only"


def with_quality(
    parity: Parity,
    bundle: Bundle,
    made: Mapping[str, Program],
    run: tuple[Trained, Path, CheckedGraph] | None,
    tell: Callable[[str, int, int], Any],
) -> Parity:
    """The certificate with what every build that runs here costs and gains, where one of them is quantised. `run` is
    the run, its folder, and its graph with the axes that were compiled.

    Raises:
        AtinukeError: a build cannot be measured on what the model was measured on.
    """
    if not any(build.name.endswith(tuple(f"/{one}" for one in QUANTISED)) for build in parity.builds):
        return parity
    tell("measuring the model", 0, 0)
    eager = EagerRunner(made)
    model = DeployedModel(eager)
    test, said = find_test(run, eager) if run else (None, NO_RUN)
    count, figure = 0, NONE
    if test and run:
        try:
            count = _count(test, model)
            figure = _plain(test.measure(model, count))
            said = f"{count:,} of {test.of}"
        except AtinukeError as error:
            test, said = None, f"none, because the run's own cannot be worked out: {error.mistakes[0].what}"
    threads = torch.get_num_threads()
    sizes = bench.choose(bundle, {})
    times, found = list[float](), []
    for build in parity.builds:
        if build.status == NOT_RUN:
            found.append(build)
            continue
        tell(f"{build.name}: measuring", 0, 0)
        runner = bundle.runner(build.name, threads)
        slow, fast, faster = _in_turn(bundle, eager, runner, sizes)
        times.append(slow)
        own = _plain(test.measure(DeployedModel(runner), count)) if test else NONE
        files = sum(file.stat().st_size for file in bundle.place(build.name).rglob("*") if file.is_file())
        found.append(replace(build, quality=Measured(files, fast, faster, *own)))
    if not times:
        return parity
    size = (bundle.folder / WEIGHTS).stat().st_size
    one = Measured(size, statistics.median(times), 1.0, *figure)
    call = f"{_task(bundle)} at {', '.join(f'{name}={number}' for name, number in sizes.items())}"
    quality = Quality(call, threads, test.metric if test else None, said, one)
    return replace(parity, builds=tuple(found), quality=quality)


def _task(bundle: Bundle) -> str:
    return bench.FORWARD if "forward" in bundle.programs else bench.EACH


def _in_turn(bundle: Bundle, model: Runner, build: Runner, sizes: Mapping[str, int]) -> tuple[float, float, float]:
    """Median milliseconds of the model and of the build, and the median of the ratios within a round."""
    calls = [bench.calls(bundle, runner, sizes)[_task(bundle)] for runner in (model, build)]
    for call in calls:
        call()
    rounds: list[list[float]] = []
    ends = time.perf_counter() + PACE
    while len(rounds) < ROUNDS[0] or (len(rounds) < ROUNDS[1] and time.perf_counter() < ends):
        times = []
        for call in calls:
            began = time.perf_counter()
            call()
            times.append((time.perf_counter() - began) * 1e3)
        rounds.append(times)
    slow, fast = (statistics.median(times) for times in zip(*rounds, strict=True))
    return slow, fast, statistics.median(one / other for one, other in rounds)


def _plain(figure: Figure) -> Figure:
    """What is no number is none."""
    value, low, high = (one if one is not None and math.isfinite(one) else None for one in figure)
    return value, low, high


def _count(test: Test, model: DeployedModel) -> int:
    """How many rows can be measured in the time there is, by the time that the first ones take."""
    few = min(GROUP, test.rows)
    began = time.monotonic()
    test.measure(model, few)
    return max(few, min(test.rows, int(SECONDS * few / (time.monotonic() - began))))
