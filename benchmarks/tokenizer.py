"""Encoding speed on one core against Hugging Face tokenizers, on the sources of Python's standard library.

Called `tokenizer.py` because a script named `tokenize.py` would hide the standard library's module from its neighbours.
"""

import argparse
import os
import statistics
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"  # before its import: batches of Hugging Face would run on all cores

import numpy as np
import tokenizers
from rich.console import Console
from rich.table import Table

from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.runtime.bytelevel import Ids

PEER = "Hugging Face, one by one"
TARGET = 5.0


def standard_library(size: int) -> list[str]:
    """Python files in sorted order, until they have `size` bytes."""
    texts, total = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if total >= size:
            break
        if "site-packages" not in path.parts:
            raw = path.read_bytes()
            try:
                texts.append(raw.decode())
            except UnicodeDecodeError:  # tests of other encodings
                continue
            total += len(raw)
    return texts


def memory_bandwidth() -> float:
    """Bytes a second, read and written, of a copy that no cache holds."""
    source = np.ones(1 << 28, np.uint8)
    target = np.empty_like(source)
    return max(2 * source.nbytes / seconds(lambda: np.copyto(target, source)) for _ in range(5))


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    console = Console()
    texts = standard_library(int(options.megabytes * 1e6))
    size = sum(len(text.encode()) for text in texts)
    ours = Tokenizer.train(texts, 8192)
    theirs = tokenizers.Tokenizer.from_str(ours.content)
    assert ours.engine == "tiktoken", ours.engine
    batches = [texts[at : at + 64] for at in range(0, len(texts), 64)]
    entries: dict[str, Callable[[], Sequence[Sequence[int] | Ids]]] = {
        "Atinuke, batches": lambda: [ids for batch in batches for ids in ours.encode_batch(batch)],
        "Atinuke, one by one": lambda: [ours.encode(text) for text in texts],
        "Hugging Face, batches": lambda: [e.ids for batch in batches for e in theirs.encode_batch(batch)],
        PEER: lambda: [theirs.encode(text).ids for text in texts],
    }
    expected = entries[PEER]()
    for name, encode in entries.items():
        assert [list(ids) for ids in encode()] == expected, f"{name}: other tokens"

    times = {name: list[float]() for name in entries}
    for _ in range(options.rounds):  # interleaved, so that a slow moment of the machine meets all
        for name, encode in entries.items():
            times[name].append(seconds(encode))
    bandwidth = memory_bandwidth()

    table = Table(title=f"{size / 1e6:.1f} MB in {len(texts)} documents, vocabulary 8192, one core, same tokens")
    for column in ("encoder", "MB/s", "tokens/s", "x", "of memory bandwidth"):
        table.add_column(column, justify="left" if column == "encoder" else "right")
    count = sum(map(len, expected))
    ratios = {}
    for name, taken in times.items():
        median = statistics.median(taken)
        ratios[name] = statistics.median(peer / own for own, peer in zip(taken, times[PEER], strict=True))
        share = f"{size / median / bandwidth:.2%}"
        table.add_row(name, f"{size / median / 1e6:.1f}", f"{count / median / 1e6:.2f} M", f"{ratios[name]:.1f}", share)
    console.print(table)
    if size < options.megabytes * 1e6:
        console.print(f"This Python's library has only {size / 1e6:.1f} MB.")
    best = next(iter(ratios.values()))
    console.print(f"A copy in memory moves {bandwidth / 1e9:.1f} GB/s. Medians of {options.rounds} interleaved rounds.")
    console.print(f"Target {TARGET:g} x: {'reached' if best >= TARGET else 'MISSED'}.")
    console.print(f"Again: python benchmarks/tokenizer.py --megabytes {options.megabytes:g} --rounds {options.rounds}")


if __name__ == "__main__":
    main()
