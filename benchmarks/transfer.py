"""What a pretrained encoder brings to each task: nothing, a head alone, low-rank updates, all of its weights.

    python benchmarks/transfer.py MODEL DATA                    # writes docs/transfer.md; days on one core
    python benchmarks/transfer.py MODEL DATA --task sst2 --way full --seed 1

MODEL is a model folder (`atinuke convert`), DATA the folder with the benchmarks' files. Each cell is a run of `atinuke
train` and `atinuke evaluate`. What was found is kept in docs/transfer.jsonl and is not tried again, and a run that was
interrupted goes on, so several processes can share the work.
"""

import argparse
import gzip
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cells import always, keep, read, told, trained
from rich.console import Console

from atinuke.pipelines import checkpoint
from atinuke.pipelines.evaluate_task import evaluate_task
from atinuke.pipelines.task import Task
from atinuke.pipelines.tasks.labelled import Labelled, Rated

ROOT = Path(__file__).parents[1]
PAGE, FOUND = ROOT / "docs" / "transfer.md", ROOT / "docs" / "transfer.jsonl"
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Subject:
    """A task with its files below DATA, the score that its column shows, and how long it is trained. Without a file to
    validate with, each ninth document of the other is held out."""

    train: tuple[str, ...]
    validation: str | None
    score: str
    steps: int
    batch: int = 32
    length: int = 128
    more: Mapping[str, Any] = field(default_factory=dict)
    head_lr: float | None = None


SUBJECTS = {
    "sst2": Subject(("glue/SST-2/train.tsv.gz",), "glue/SST-2/dev.tsv.gz", "accuracy", 2000, length=64),
    "stsb": Subject(("glue/STS-B/train.tsv.gz",), "glue/STS-B/dev.tsv.gz", "spearman", 700),
    "snli": Subject(("snli/train_20k.jsonl.gz",), "snli/dev_part.jsonl.gz", "accuracy", 1800, length=80),
    "squad": Subject(
        ("squad/train-v1.1-subset.json.gz",),
        "squad/dev-v1.1-first24.json.gz",
        "f1",
        1500,
        12,
        384,
        {"stride": 128},
    ),
    "rte": Subject(("glue/RTE/train.tsv.gz",), "glue/RTE/dev.tsv.gz", "accuracy", 350, length=192),
    "mrpc": Subject(("glue/MRPC/train.tsv.gz",), "glue/MRPC/dev.tsv.gz", "f1", 450),
    "cola": Subject(("glue/CoLA/train.tsv.gz",), "glue/CoLA/dev.tsv.gz", "matthews", 950, length=64),
    "srl": Subject(("srl_ewt/train.conll.gz",), "srl_ewt/dev.conll.gz", "f1", 3000),
    "coreference": Subject(
        ("litbank/coref_90books.conll.gz",), None, "CoNLL F1", 1000, 1, 512, {"keep": 96, "singletons": True}, 1e-3
    ),
}
LORA = {"rank": 8, "alpha": 16, "on": ["stack.*.H.qkv", "stack.*.F.up"]}
WAYS: dict[str, dict[str, Any]] = {
    "full": {"optimiser": {"name": "adamw", "lr": 1e-4, "weight_decay": 0.01}},
    "lora": {"optimiser": {"name": "adamw", "lr": 5e-4, "weight_decay": 0.0}, "adapt": {"lora": LORA}},
    "frozen": {"optimiser": {"name": "adamw", "lr": 3e-3, "weight_decay": 0.0}, "adapt": {"train": ["task_*"]}},
    "scratch": {"optimiser": {"name": "adamw", "lr": 3e-4, "weight_decay": 0.01}},
}


@dataclass(frozen=True)
class Cell:
    """A task trained in a way with a seed: the score with its 95 % interval over the items, minutes of training, and
    the parameters that were trained."""

    task: str
    way: str
    seed: int
    value: float
    low: float
    high: float
    minutes: float = 0.0
    parameters: int = 0


def files_of(name: str, data: Path, runs: Path) -> tuple[list[Path], Path]:
    """The files to train on, and the one to validate with."""
    subject = SUBJECTS[name]
    train = [data / file for file in subject.train]
    if subject.validation:
        return train, data / subject.validation
    with gzip.open(train[0], "rt", encoding="utf-8") as opened:
        documents = re.findall(r"^#begin document.*?^#end document\n", opened.read(), flags=re.DOTALL | re.MULTILINE)
    parts = runs.resolve() / name / "train.conll", runs.resolve() / name / "validation.conll"
    parts[0].parent.mkdir(parents=True, exist_ok=True)
    for file, held_out in zip(parts, (False, True), strict=True):
        text = "".join(one for number, one in enumerate(documents) if (number % 9 == 0) == held_out)
        draft = file.with_name(f"{file.name}.{os.getpid()}")  # another process may be reading the file
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    return [parts[0]], parts[1]


def recipe_of(name: str, way: str, seed: int, model: Path, files: tuple[list[Path], Path]) -> dict[str, Any]:
    """The recipe of a cell, as its file has it."""
    subject = SUBJECTS[name]
    begins: dict[str, Any] = {"pretrained": str(model)}
    if way == "scratch":
        begins = {"graph": {"use": str(model / "graph.yaml")}, "tokenizer": {"file": str(model / "tokenizer.json")}}
    train, validation = files
    task = {"name": name, "train": [str(file) for file in train], "validation": str(validation)}
    rates = {"head_lr": subject.head_lr} if subject.head_lr else {}
    return {
        **begins,
        "task": {**task, "length": subject.length, **subject.more},
        **WAYS[way],
        "optimiser": {**WAYS[way]["optimiser"], **rates},
        "schedule": {"name": "cosine", "warmup": subject.steps // 20, "final": 0.0},
        "precision": "bf16",
        "steps": subject.steps,
        "batch": subject.batch,
        "on_bad_loss": {"spike": None},  # a seed that falls back to chance is measured, not left out
        "evaluate_every": subject.steps,
        "evaluate_batches": 1,  # the whole file is measured afterwards
        "save_every": 200,
        "seed": seed,
    }


def run(name: str, way: str, seed: int, options: argparse.Namespace, console: Console) -> Cell:
    """Trains, or goes on with, a cell's run, and measures it."""
    folder = options.runs / name / way / str(seed)
    files = files_of(name, options.data.resolve(), options.runs)
    recipe = recipe_of(name, way, seed, options.model.resolve(), files)
    minutes = trained(recipe, folder, console)
    last = checkpoint.saved(folder / "checkpoints")[-1]
    parameters = sum(tensor.numel() for tensor in checkpoint.read(last / checkpoint.WEIGHTS).values())
    output = options.runs / "evaluations" / name / way / str(seed)
    scored = evaluate_task(folder, output=output, console=console).scores
    interval = next(one.interval for one in scored if one.name == SUBJECTS[name].score)
    return Cell(name, way, seed, interval.value, interval.low, interval.high, minutes, parameters)


def majority(name: str, data: Path, runs: Path) -> Cell | None:
    """What always saying the most frequent label of training scores; None where a task has no labels."""
    subject, kind = SUBJECTS[name], Task.named(name)
    if not issubclass(kind, Labelled) or issubclass(kind, Rated):
        return None
    interval = always(kind.model_validate({"name": name}), *files_of(name, data, runs), subject.score)
    return Cell(name, "majority", 0, interval.value, interval.low, interval.high)


def page(cells: list[Cell]) -> str:
    """The table for people."""
    ways = ["majority", "scratch", "frozen", "lora", "full"]
    lines = [HEAD, f"| task | score | {' | '.join(ways)} |", "|" + "---|" * (2 + len(ways))]
    for name, subject in SUBJECTS.items():
        shown = [_shown([one for one in cells if (one.task, one.way) == (name, way)]) for way in ways]
        lines += [f"| {name} | {subject.score} | {' | '.join(shown)} |"]
    return "\n".join(lines) + "\n"


HEAD = """# What a pretrained encoder brings

Made by `python benchmarks/transfer.py MODEL DATA` with all-MiniLM-L6-v2 (22.7 million parameters) on one core: from
scratch with the same graph, a head on frozen vectors, low-rank updates (rank 8, on q, k, v and the first map of the
feed-forward network) and all weights, each for as many steps. A cell is the mean over the seeds so far with their
standard deviation, in brackets the mean ends of their 95 % intervals over the items (bootstrap); then the number of
seeds, the parameters that were trained, and the fewest minutes of training that a seed took: the core was shared with
other work, most of all for seed 1 of full, which came before dropout was faster too. Settings were not searched. What
has no labels has no majority; another empty cell was not tried yet.
"""


def _shown(cells: list[Cell]) -> str:
    if not cells:
        return ""
    shown = told(cells)
    if cells[0].way == "majority":
        return shown
    minutes = min(one.minutes for one in cells)
    seeds = f"{len(cells)} seeds" if len(cells) > 1 else "1 seed"
    return f"{shown}; {seeds}; {cells[0].parameters:,}; {minutes:.0f} min"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", action="append", choices=SUBJECTS, help="only this one")
    parser.add_argument("--way", action="append", choices=WAYS, help="only this one")
    parser.add_argument("--seed", action="append", type=int, help="only this one")
    parser.add_argument("--runs", type=Path, default=Path("runs/transfer"), help="where runs are kept")
    options = parser.parse_args()
    console = Console(stderr=True)
    there = {(one.task, one.way, one.seed) for one in read(FOUND, Cell)}
    for seed in options.seed or SEEDS:
        for way in options.way or WAYS:
            for name in options.task or SUBJECTS:
                if (name, way, seed) not in there:
                    console.print(f"{name}, {way}, seed {seed}")
                    keep(FOUND, [run(name, way, seed, options, console)])
    for name in options.task or SUBJECTS:
        if (name, "majority", 0) not in there and (cell := majority(name, options.data, options.runs)):
            keep(FOUND, [cell])
    PAGE.write_text(page(read(FOUND, Cell)), encoding="utf-8")


if __name__ == "__main__":
    main()
