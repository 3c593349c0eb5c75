"""Training speed against Hugging Face's GPT-2 of equal size, side by side: forward, backward, clipping, fused AdamW.

    taskset -c 0 python benchmarks/train.py

6 layers of 384, 6 heads, vocabulary 8192, context 256, batch 8, one thread. A round runs every way once; a ratio is the
median of the ratios within a round, of CPU time (one thread: what a quiet machine would take). Peers run as their users
run them: `model(input_ids, labels=labels)` under autocast, or with bfloat16 weights.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from limits import gemm, memory
from peers import dropouts, gpt2
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.inductor import compile_blocks
from atinuke.compile.measure import MetaMeter
from atinuke.compile.module import build
from atinuke.core.cost import cost
from atinuke.core.registry import Registry
from atinuke.core.rewrite import rewrite

SIZES = {"vocab_size": 8192, "d_model": 384, "heads": 6, "layers": 6}


def stepper(module: nn.Module, loss: Callable[[], Tensor], bf16: bool) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def ours(ids: Tensor, labels: Tensor, bf16: bool, form: str, dropout: float) -> Callable[[], None]:
    sets = [f"{name}={size}" for name, size in (SIZES | {"dropout": dropout}).items()]
    graph = rewrite(open_graph("atinuke", sets).graph, ["vocabulary_loss"], Registry())
    module = build(check_graph(graph)).train()
    run: Callable[..., object] = module
    if form == "blocks":
        compile_blocks(module)
    elif form == "whole":
        run = torch.compile(module)
    return stepper(module, lambda: run(ids, labels).loss, bf16)


def theirs(ids: Tensor, bf16: bool, compiled: bool, dropout: float, weights: bool = False) -> Callable[[], None]:
    sizes = (SIZES[name] for name in ("vocab_size", "d_model", "layers", "heads"))
    module = gpt2(*sizes, ids.shape[1], use_cache=False, **dropouts(dropout)).train()
    module = module.bfloat16() if weights else module
    run = torch.compile(module) if compiled else module
    return stepper(module, lambda: run(ids, labels=ids).loss, bf16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ids = torch.randint(0, SIZES["vocab_size"], (options.batch, options.context))
    labels = torch.full_like(ids, -100)
    labels[:, :-1] = ids[:, 1:]
    drop = options.dropout
    ways: dict[str, Callable[[], None]] = {
        "transformers fp32": theirs(ids, False, False, drop),
        "transformers fp32 compiled": theirs(ids, False, True, drop),
        "transformers bf16 autocast": theirs(ids, True, False, drop),
        "transformers bf16 autocast compiled": theirs(ids, True, True, drop),
        "transformers bf16 weights compiled": theirs(ids, False, True, drop, weights=True),
        "ours fp32": ours(ids, labels, False, "", drop),
        "ours fp32 compiled by blocks": ours(ids, labels, False, "blocks", drop),
        "ours fp32 compiled whole": ours(ids, labels, False, "whole", drop),
        "ours bf16 autocast": ours(ids, labels, True, "", drop),
        "ours bf16 compiled by blocks": ours(ids, labels, True, "blocks", drop),
        "ours bf16 compiled whole": ours(ids, labels, True, "whole", drop),
    }
    first: dict[str, float] = {}
    for name, way in ways.items():
        begin = time.perf_counter()
        way()
        way()
        first[name] = time.perf_counter() - begin
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            begin = time.process_time()
            way()
            seconds[name].append(time.process_time() - begin)
    sets = [f"{name}={size}" for name, size in SIZES.items()]
    flops = (
        cost(open_graph("atinuke", sets), MetaMeter()).at(batch=options.batch, sequence=options.context).training_flops
    )
    peaks = {"fp32": gemm(torch.float32), "bf16": gemm(torch.bfloat16)}
    halves = [name for name in ways if name.startswith("transformers bf16")]
    best = min(halves, key=lambda name: statistics.median(seconds[name]))
    bases = {"fp32": "transformers fp32", "fp32 compiled": "transformers fp32 compiled", "bf16": best}
    table = Table(title=f"{options.batch} x {options.context} tokens a step, dropout {drop}, {options.rounds} rounds")
    for column in ("", "tokens/s", *(f"x {base}" for base in bases.values()), "share of GEMM", "first two steps"):
        table.add_column(column, justify="right" if column else "left")
    for name in ways:
        median = statistics.median(seconds[name])
        ratios = [
            statistics.median(a / b for a, b in zip(seconds[base], seconds[name], strict=True))
            for base in bases.values()
        ]
        peak = peaks["bf16" if "bf16" in name else "fp32"]
        cells = [f"{ids.numel() / median:,.0f}", *(f"{ratio:.2f}" for ratio in ratios)]
        table.add_row(name, *cells, f"{flops / median / peak:.0%}", f"{first[name]:.0f} s")
    rates = ", ".join(f"GEMM {name} {peak / 1e9:,.0f} GFLOP/s" for name, peak in peaks.items())
    limits = f"{rates}; memory {memory() / 1e9:.1f} GB/s"
    Console(width=140).print(table, limits, sep="\n")


if __name__ == "__main__":
    main()
