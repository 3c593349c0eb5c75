"""What this machine can do at most, measured in the run that quotes it: matrix products, and reading memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat

import numpy as np

SIZE = 512  # of a matrix: 1 MB each, which stay in a cache
PIECE, PIECES = 48 << 20, 8  # bytes read in a round, and how many others are read before they are read again


@dataclass(frozen=True)
class Limits:
    """Of `threads` threads together: FLOP/s of float32 matrix products, and bytes a second read from memory."""

    threads: int
    gemm: float
    memory: float


def cores() -> int:
    """How many threads this process may have at work."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure(threads: int, rounds: int = 80) -> Limits:
    """The limits of so many threads, the best of some rounds, which are short: a busy machine leaves the best alone.
    They are measured in a process of their own, where each
    thread multiplies its own matrices: numpy's library would otherwise start threads in each."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-m", __name__, str(threads), str(rounds)]
    done = subprocess.run(command, env={**os.environ, **single}, capture_output=True, check=True)  # noqa: S603
    return Limits(**json.loads(done.stdout))


def _best(work: Callable[[int, int], object], threads: int, rounds: int) -> float:
    """Seconds for all threads to do the work of a round, the best of some rounds."""
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for at in range(rounds):
            begin = time.perf_counter()
            list(pool.map(work, repeat(at), range(threads)))
            best = min(best, time.perf_counter() - begin)
    return best


def _measured(threads: int, rounds: int) -> Limits:
    matrices = [np.ones((SIZE, SIZE), np.float32) for _ in range(threads)]
    products = [np.empty_like(one) for one in matrices]
    pieces = [np.array_split(np.ones(PIECE // 4, np.float32), threads) for _ in range(PIECES)]

    def multiply(_: int, thread: int) -> None:
        np.matmul(matrices[thread], matrices[thread], out=products[thread])

    def read(at: int, thread: int) -> None:
        part = pieces[at % PIECES][thread]
        np.dot(part, part)

    multiplied, reading = _best(multiply, threads, rounds), _best(read, threads, rounds)
    return Limits(threads, threads * 2 * SIZE**3 / multiplied, PIECE / reading)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_measured(*map(int, sys.argv[1:])))))
