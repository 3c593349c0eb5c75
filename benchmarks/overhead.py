"""What the framework costs: the generated module against the same model written by hand, eager and compiled.

    taskset -c 0 python benchmarks/overhead.py

Both have the same weights and give the same numbers. A figure is the median of the ratios of pairs that follow one
another. Then: the time to the first compiled result of a deep and a shallow model, each in a process of its own with an
empty cache, and the number of graphs over 20 batch and sequence sizes.
"""

import argparse
import copy
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from limits import said
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._dynamo.utils import counters

from atinuke.compile.front import open_graph
from atinuke.compile.inductor import compile_blocks
from atinuke.compile.module import build

SIZES = {"vocab_size": 8192, "d_model": 384, "heads": 6, "layers": 6, "dropout": 0}


class Layer(nn.Module):
    """A layer of graphs/atinuke.yaml as one writes it by hand."""

    def __init__(self, index: int, d_model: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads, self.layers = heads, layers
        self.register_buffer("index", torch.tensor(index))
        self.norm1 = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, 4 * d_model)
        self.down = nn.Linear(4 * d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        batch, sequence, d_model = x.shape
        exponent = torch.arange(0, d_model, 2, dtype=torch.float32, device=x.device) / d_model
        places = torch.arange(sequence, device=x.device).float()[:, None]
        angles = places * torch.exp(-math.log(10000.0) * exponent) + self.index / self.layers * (2 * math.pi)
        x = x + torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2).to(x.dtype)
        qkv = self.qkv(self.norm1(x)).view(batch, sequence, 3, self.heads, d_model // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ByHand(nn.Module):
    """graphs/atinuke.yaml as one writes it by hand."""

    def __init__(self, vocab_size: int, d_model: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.stack = nn.ModuleList(Layer(index, d_model, heads, layers) for index in range(layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, vocab_size, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids) * self.embedding.embedding_dim**0.5
        for layer in self.stack:
            x = layer(x)
        return self.head(self.norm(x))


def pair(layers: int) -> tuple[nn.Module, nn.Module]:
    """The generated module and the one by hand, with the same weights."""
    sizes = SIZES | {"layers": layers}
    model = build(open_graph("atinuke", [f"{name}={size}" for name, size in sizes.items()]))
    hand = ByHand(**{name: size for name, size in sizes.items() if name != "dropout"})
    hand.load_state_dict(matched(model, hand))
    return model, hand


def matched(model: nn.Module, hand: nn.Module) -> dict[str, Tensor]:
    """The generated module's weights by the names of the one by hand."""
    renames = {"P.layer": "index", "H.qkv": "qkv", "H.output": "output", "F.up": "up", "F.down": "down"}
    found: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        for ours, theirs in (*renames.items(), ("E.weight", "embedding.weight"), ("O.weight", "head.weight")):
            name = name.replace(ours, theirs)
        found[name] = value
    return found


def training(model: nn.Module, logits: Callable[[nn.Module, Tensor], Tensor], ids: Tensor) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        scores = logits(model, ids)
        F.cross_entropy(scores[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def forward(model: nn.Module, ids: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            model(ids)

    return run


def first_result(layers: int) -> float:
    """Seconds to the first result of a compiled model, in a new process with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--first", str(layers)]
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def print_first(layers: int) -> None:
    model, _ = pair(layers)
    ids = torch.randint(0, 8192, (2, 64))
    begin = time.perf_counter()
    compile_blocks(model)
    model(ids).logits.sum().backward()
    print(time.perf_counter() - begin)


def graphs_over_sizes() -> tuple[int, int, int]:
    """The number of graphs after two sizes, after twenty more, and after a batch of one, which torch specialises."""
    torch._dynamo.reset()
    counters.clear()
    model, _ = pair(6)
    compile_blocks(model)

    @torch.no_grad()
    def graphs(sizes: Iterable[tuple[int, int]]) -> int:
        for batch, sequence in sizes:
            model(torch.randint(0, 8192, (batch, sequence)))
        return int(counters["stats"]["unique_graphs"])

    twenty = ((2 + 3 * n % 7, 17 + 13 * n) for n in range(20))
    return graphs([(4, 64), (8, 96)]), graphs(twenty), graphs([(1, 64)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.first:
        print_first(options.first)
        return
    ids = torch.randint(0, 8192, (4, 128))
    table = Table("", "", "generated / by hand", "quartiles", title=f"{options.pairs} pairs, batch 4, 128 tokens, fp32")
    for compiled in (False, True):
        model, hand = pair(SIZES["layers"])
        with torch.no_grad():
            torch.testing.assert_close(model(ids).logits, hand(ids), rtol=1e-4, atol=1e-4)
        copies = copy.deepcopy(model), copy.deepcopy(hand)
        if compiled:
            for module in (model, hand, *copies):
                compile_blocks(module)
        works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "forward": (forward(model, ids), forward(hand, ids)),
            "training step": (
                training(copies[0], lambda m, x: m(x).logits, ids),
                training(copies[1], lambda m, x: m(x), ids),
            ),
        }
        for name, (ours, theirs) in works.items():
            ours(), theirs(), ours(), theirs()
            ratios: list[float] = []
            for i in range(options.pairs):
                seconds: dict[int, float] = {}
                for which in (0, 1) if i % 2 else (1, 0):
                    begin = time.process_time()
                    (ours, theirs)[which]()
                    seconds[which] = time.process_time() - begin
                ratios.append(seconds[0] / seconds[1])
            quartiles = statistics.quantiles(ratios, n=4)
            cells = f"{statistics.median(ratios):.3f}", f"{quartiles[0]:.3f} to {quartiles[2]:.3f}"
            table.add_row(name, "compiled" if compiled else "eager", *cells)
    two, twenty, one = graphs_over_sizes()
    shallow, deep = first_result(3), first_result(24)
    Console(width=120).print(
        table,
        f"first compiled result and gradient: 3 layers {shallow:.1f} s, 24 layers {deep:.1f} s: x {deep / shallow:.2f}",
        f"graphs after two sizes: {two}; after twenty more: {twenty}; after a batch of one: {one}",
        said(),
        sep="\n",
    )


if __name__ == "__main__":
    main()
