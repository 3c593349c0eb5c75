"""A build in a process of its own: how long it takes to load, and how much memory the process needs at most."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from atinuke.core.errors import AtinukeError


@dataclass(frozen=True)
class Alone:
    """Seconds from an opened bundle to programs that can be called, the engine's import included; and the peak of the
    process's memory in bytes after one call of each task (None where the system does not tell)."""

    load: float
    memory: int | None


def alone(folder: Path, build: str, sizes: Mapping[str, int], threads: int | None) -> Alone | str:
    """Loads and runs a build of the bundle in `folder`, whose lock was checked; or why it cannot run here."""
    given = json.dumps([str(folder), build, dict(sizes), threads])
    done = subprocess.run([sys.executable, "-m", __name__, given], capture_output=True, text=True)  # noqa: S603
    if done.returncode == 0:
        return Alone(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode < 0:
        return f"its engine crashed (signal {-done.returncode})"
    told = done.stderr.strip().splitlines()
    return told[-1] if told else f"its process ended with code {done.returncode}, and said nothing"


def peak() -> int | None:
    """The most memory that this process has held, in bytes. On Linux `ru_maxrss` would be that of the parent where it
    held more."""
    with suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def _main(given: str) -> None:
    from atinuke.runtime.bench import calls
    from atinuke.runtime.bundle import read_config

    folder, build, sizes, threads = json.loads(given)
    try:
        bundle = read_config(Path(folder))
        begin = time.perf_counter()
        runner = bundle.runner(build, threads)
        load = time.perf_counter() - begin
        for call in calls(bundle, runner, sizes).values():
            call()
    except AtinukeError as error:
        told = error.mistakes[0]
        sys.exit(": ".join([told.what, *told.details]))
    sys.stdout.write(f"\n{json.dumps(asdict(Alone(load, peak())))}\n")


if __name__ == "__main__":
    _main(sys.argv[1])
