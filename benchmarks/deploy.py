"""The builds of a bundle against other engines: same weights, same inputs, one thread, side by side.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/deploy.py bert-1 bert-8 minilm-1 gpt2 sound

A round calls every engine once, the first one rotating; a ratio is the median of the ratios within a round, of wall
time and of CPU time (the one to trust on a shared machine), and the ratio of the best times. The error is the largest
difference from the model in float64 as a share of its largest value, or how many greedy tokens are those of
transformers. Engines of others are optional; see engines.py.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from limits import gemm_int8, packed, said
from rich.console import Console
from rich.table import Table
from subjects import Subject, open_subject

SUBJECTS = ("bert-1", "bert-8", "minilm-1", "gpt2", "sound")
TARGETS = ("onnx", "openvino", "aot")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", default=SUBJECTS, help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--targets", nargs="*", default=TARGETS, help="ours")
    parser.add_argument("--only", nargs="*", default=(), help="parts of the names of the ways to run beside the first")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=140)
    for name in options.subjects:
        with tempfile.TemporaryDirectory() as scratch:
            subject = open_subject(name, options.targets, Path(scratch))
            measure(subject, options.rounds, options.only, console)
    more = f"fp32 with packed weights {packed() / 1e9:,.0f} GFLOP/s, int8 {gemm_int8() / 1e9:,.0f} GOP/s"
    console.print(said(), more, sep="; ")


def measure(subject: Subject, rounds: int, only: tuple[str, ...], console: Console) -> None:
    """Opens, checks and times every way of a subject, and prints its table."""
    calls: dict[str, Callable[[], Any]] = {}
    told: dict[str, str] = {}
    base = next(iter(subject.ways))
    for name, way in subject.ways.items():
        if only and name != base and not any(part in name for part in only):
            continue
        try:
            call = way()
            told[name] = subject.error(name, call)
            calls[name] = call
        except ImportError as error:
            told[name] = f"not installed: {error.name}"
        except Exception as error:  # one engine's trouble is told in its row
            told[name] = f"{type(error).__name__}: {error}".splitlines()[0][:70]
        console.print(f"[dim]{name}: {told[name]}", highlight=False)
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(rounds):
        for name in order:
            begins = time.perf_counter(), time.process_time()
            calls[name]()
            wall[name].append(time.perf_counter() - begins[0])
            cpu[name].append(time.process_time() - begins[1])
        order = order[1:] + order[:1]
    table = Table(title=f"{subject.title}; one thread, {rounds} rounds")
    for column in ("", "best ms", "x wall", "x CPU", "x best", "error or tokens"):
        table.add_column(column, justify="right" if column else "left")
    for name, error in told.items():
        if name not in calls:
            table.add_row(name, "", "", "", "", error)
            continue
        ratios = [
            statistics.median(a / b for a, b in zip(times[base], times[name], strict=True)) for times in (wall, cpu)
        ]
        figures = (*ratios, min(wall[base]) / min(wall[name]))
        table.add_row(name, f"{min(wall[name]) * 1e3:.2f}", *(f"{figure:.2f}" for figure in figures), error)
    console.print(table)


if __name__ == "__main__":
    main()
