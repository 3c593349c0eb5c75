"""Validation loss at the demo's settings: the variants of P_l, none of it, and Hugging Face's GPT-2 of equal size.

    python benchmarks/quality.py --seeds 1 2 3 --out quality.jsonl
    python benchmarks/quality.py --table quality.jsonl

Every run reads the same batches in the same order, with the same optimiser, schedule and number of steps; a seed
decides the weights, the dropout and the order. Runs whose result is in the file already are left out, so several
processes can share the work (`--only`), and an interrupted one goes on.
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import torch
from peers import dropouts, gpt2
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.module import build
from atinuke.core.registry import Registry
from atinuke.core.rewrite import rewrite
from atinuke.pipelines import log
from atinuke.pipelines.corpus import prepare
from atinuke.pipelines.demo import prepare_demo
from atinuke.pipelines.loop import Feed, Job, Loop
from atinuke.pipelines.recipe import Recipe, load_recipe
from atinuke.pipelines.sampler import Sampler, in_order
from atinuke.pipelines.text import documents
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.pipelines.world import joined

PEER = "transformers GPT-2"
VARIANTS = {
    "atinuke as shipped (turns=1)": [],
    "embeddings not scaled": ["E=text.embedding(scale=1)"],
    "no P_l": ["layer.P=identity"],
    "no P_l, embeddings not scaled": ["layer.P=identity", "E=text.embedding(scale=1)"],
    "neutral: Vaswani in every layer": ["layer.P=position.layerwise(turns=0)"],
    "base grows 8 times": ["layer.P=position.layerwise(turns=0, growth=8)"],
    "learned gain": ["layer.P=position.layerwise(turns=0, gain=true)"],
    "turns, growth and gain": ["layer.P=position.layerwise(turns=1, growth=8, gain=true)"],
    "Vaswani once": ["layer.P=identity", "drop=position.sinusoidal"],
    "learned once (GPT-2's)": ["layer.P=identity", "drop=position.learned(length=1024)"],
}


class Output(NamedTuple):
    loss: Tensor


class HuggingFace(nn.Module):
    """transformers' GPT-2 with the dims of the recipe's graph."""

    def __init__(self, dims: dict[str, int], dropout: float) -> None:
        super().__init__()
        sizes = (dims[name] for name in ("vocab_size", "d_model", "layers", "heads"))
        self.model = gpt2(*sizes, **dropouts(dropout))

    def forward(self, input_ids: Tensor, labels: Tensor) -> Output:
        logits = self.model(input_ids).logits
        return Output(nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()))


def module(name: str, recipe: Recipe) -> nn.Module:
    sets = [f"{key}={value}" for key, value in recipe.graph.set.items()]
    graph = open_graph(recipe.graph.use, sets, VARIANTS.get(name, [])).graph
    if name == PEER:
        dims = {key: int(value) for key, value in graph.dims.items() if not isinstance(value, str)}
        return HuggingFace(dims, float(graph.dims["dropout"]))
    return build(check_graph(rewrite(graph, ["vocabulary_loss"], Registry())))


def run(name: str, seed: int, folder: Path) -> dict[str, object]:
    recipe = load_recipe(prepare_demo(folder), [f"seed={seed}"])
    tokenizer = Tokenizer.train(documents(folder / "topics.jsonl"), recipe.tokenizer.vocab_size or 0)
    corpus = prepare(
        [folder / "topics.jsonl"], tokenizer, folder / "shards", validation=recipe.data.validation_fraction
    )
    sizes = {"batch": recipe.batch, "context": recipe.data.context}
    torch.manual_seed(seed)
    made = module(name, recipe)
    feed = Feed(Sampler(corpus.train, **sizes, seed=seed), lambda: in_order(corpus.validation, **sizes))
    job = Job(made, feed)
    with joined() as world, tempfile.TemporaryDirectory() as place:
        Loop(recipe, Path(place), job, world, Console(stderr=True)).run()
        losses = [
            record["validation_loss"] for record in log.read(Path(place) / log.NAME) if "validation_loss" in record
        ]
    parameters = sum(parameter.numel() for parameter in made.parameters())
    return {"name": name, "seed": seed, "loss": losses[-1], "best": min(losses), "parameters": parameters}


def table(file: Path) -> Table:
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for line in file.read_text().splitlines():
        record = json.loads(line)
        found[record["name"]].append(record)
    result = Table("", "seeds", "final validation loss", "lowest", "parameters", title="demo settings, nats a token")
    for name, records in sorted(found.items(), key=lambda item: statistics.mean(r["loss"] for r in item[1])):
        losses = [record["loss"] for record in records]
        spread = statistics.stdev(losses) if len(losses) > 1 else float("nan")
        best = statistics.mean(record["best"] for record in records)
        mean = f"{statistics.mean(losses):.4f} ± {spread:.4f}"
        result.add_row(name, str(len(losses)), mean, f"{best:.4f}", f"{records[0]['parameters']:,}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", default=[PEER, *VARIANTS])
    parser.add_argument("--out", type=Path, default=Path("quality.jsonl"))
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table is None:
        torch.set_num_threads(1)
        options.out.touch()
        for seed in options.seeds:
            for name in options.only:
                done = {(r["name"], r["seed"]) for r in map(json.loads, options.out.read_text().splitlines())}
                if (name, seed) not in done:
                    with tempfile.TemporaryDirectory() as folder:
                        record = run(name, seed, Path(folder))
                    with options.out.open("a") as file:
                        file.write(json.dumps(record) + "\n")
    Console().print(table(options.table or options.out))


if __name__ == "__main__":
    main()
