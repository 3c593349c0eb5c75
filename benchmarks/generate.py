"""Greedy decoding for one row, against transformers' `generate`: same weights, same tokens, side by side.

    taskset -c 0 python benchmarks/generate.py --size 124M
    taskset -c 0 python benchmarks/generate.py --size 14M

A round runs every way once, the first one rotating; a ratio is the median of the ratios within a round, of wall time
and of CPU time (the one to trust on a shared machine). The limit is the time to read the weights of the linear layers.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from limits import said
from peers import gpt2
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._dynamo.utils import counters

from atinuke.compile.front import open_graph
from atinuke.compile.inductor import compile_step
from atinuke.compile.memory import lay_out
from atinuke.compile.module import build
from atinuke.pipelines.decode import Decoder

SIZES = {"14M": (6, 384, 6, 8192), "124M": (12, 768, 12, 50257)}


def ours(peer: nn.Module, layers: int, d_model: int, heads: int, vocabulary: int) -> nn.Module:
    """The shipped gpt2 graph with the peer's weights."""
    sets = {"layers": layers, "d_model": d_model, "heads": heads, "vocab_size": vocabulary, "dropout": 0}
    model = build(open_graph("gpt2", [f"{name}={value}" for name, value in sets.items()])).eval()
    theirs = peer.state_dict()
    names = {"E.weight": "wte.weight", "P.weight": "wpe.weight", "norm.weight": "ln_f.weight", "norm.bias": "ln_f.bias"}
    state = {name: theirs[f"transformer.{other}"] for name, other in names.items()} | {
        "O.weight": theirs["lm_head.weight"]
    }
    pairs = {"norm1": "ln_1", "norm2": "ln_2", "H.qkv": "attn.c_attn", "H.output": "attn.c_proj"}
    pairs |= {"F.up": "mlp.c_fc", "F.down": "mlp.c_proj"}
    for layer in range(layers):
        for name, other in pairs.items():
            for kind in ("weight", "bias"):
                value = theirs[f"transformer.h.{layer}.{other}.{kind}"]
                transposed = kind == "weight" and value.ndim == 2  # as transformers stores GPT-2's matrices
                state[f"stack.{layer}.{name}.{kind}"] = value.t() if transposed else value
    model.load_state_dict(state)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="14M")
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers, d_model, heads, vocabulary = SIZES[options.size]
    wide = 0.05  # enough that the likeliest token is not always the same
    peer = gpt2(vocabulary, d_model, layers, heads, initializer_range=wide).eval()
    plain = ours(peer, layers, d_model, heads, vocabulary)
    laid_out = copy.deepcopy(plain)
    lay_out(laid_out)
    step = compile_step(plain)
    ids = torch.randint(0, vocabulary, (1, options.prompt), generator=torch.Generator().manual_seed(1))
    matrices = [p for name, p in plain.named_parameters() if p.ndim == 2 and name != "P.weight"]
    weights = torch.cat([matrix.detach().flatten() for matrix in matrices])

    def theirs(**more: object) -> Tensor:
        mask = torch.ones_like(ids)
        found = peer.generate(
            ids, attention_mask=mask, max_new_tokens=options.new, do_sample=False, pad_token_id=0, **more
        )
        return found[:, options.prompt :]

    def mine(model: nn.Module, step: Callable[..., Any] | None = None) -> Tensor:
        return greedy(model, ids, options.new, step)

    def read() -> None:
        for _ in range(options.new):
            weights.sum()

    begin = time.perf_counter()
    mine(plain, step)
    first = time.perf_counter() - begin
    ways: dict[str, Callable[[], Tensor | None]] = {
        "transformers generate": theirs,
        "transformers, static cache": lambda: theirs(cache_implementation="static", disable_compile=True),
        "ours, eager, weights as loaded": lambda: mine(plain),
        "ours, eager, laid out": lambda: mine(laid_out),
        "ours, compiled": lambda: mine(plain, step),
        "limit: reading the weights": read,
    }
    expected = theirs()
    for name, way in ways.items():
        found = way()
        if found is not None and not torch.equal(found, expected):
            raise SystemExit(f"{name}: other tokens than transformers")
    graphs = counters["stats"]["unique_graphs"]
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for _ in range(options.rounds):
        for name in order:
            begins = time.perf_counter(), time.process_time()
            ways[name]()
            wall[name].append((time.perf_counter() - begins[0]) / options.new)
            cpu[name].append((time.process_time() - begins[1]) / options.new)
        order = order[1:] + order[:1]
    if counters["stats"]["unique_graphs"] != graphs:
        raise SystemExit("recompiled while timed")
    title = (
        f"{options.size}, one row, fp32, one thread, {options.prompt} + {options.new} tokens, {options.rounds} rounds"
    )
    table = Table(title=title)
    for column in ("", "tokens/s", "x wall", "x CPU", "worst to best x CPU", "share of the limit (CPU)"):
        table.add_column(column, justify="right" if column else "left")
    base, limit = "transformers generate", "limit: reading the weights"
    for name in ways:
        ratios = sorted(a / b for a, b in zip(cpu[base], cpu[name], strict=True))
        table.add_row(
            name,
            f"{1 / statistics.median(wall[name]):.1f}",
            f"{statistics.median(a / b for a, b in zip(wall[base], wall[name], strict=True)):.2f}",
            f"{statistics.median(ratios):.2f}",
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
            f"{statistics.median(a / b for a, b in zip(cpu[limit], cpu[name], strict=True)):.0%}",
        )
    size = weights.numel() * 4
    speed = size / statistics.median(cpu[limit]) / 1e9
    distinct = expected.unique().numel()
    Console(width=120).print(
        table,
        f"{size / 2**20:.0f} MiB of weights a token, read at {speed:.1f} GB/s of CPU time; {said()}",
        f"{graphs} compiled graph(s), first call {first:.1f} s; {distinct} distinct of {options.new} tokens",
        sep="\n",
    )


@torch.inference_mode()
def greedy(model: nn.Module, ids: Tensor, new: int, step: Callable[..., Any] | None) -> Tensor:
    """The tokens that `atinuke generate --temperature 0` writes."""
    decoder = Decoder(model, ids.tolist(), step)
    tokens = [decoder.prefill().argmax(-1)]
    while len(tokens) < new:
        tokens.append(decoder.next(tokens[-1]).argmax(-1))
    return torch.stack(tokens, dim=1)


if __name__ == "__main__":
    main()
