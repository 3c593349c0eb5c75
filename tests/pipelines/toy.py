"""A small module and endless batches with the interfaces of the real ones, for tests of the loop."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atinuke.pipelines.loop import Feed, Job
from atinuke.pipelines.recipe import Recipe
from atinuke.pipelines.sampler import Batch

VOCAB, CONTEXT = 17, 12


class Output(NamedTuple):
    loss: Tensor
    balance_loss: Tensor


class Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(F.gelu(self.linear(self.norm(x))))


class Toy(nn.Module):
    """Embedding, two residual blocks, and a head tied to the embedding."""

    def __init__(self, width: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        self.E = nn.Embedding(VOCAB, width)
        self.stack = nn.ModuleList(Block(width, dropout) for _ in range(2))
        self.O = nn.Linear(width, VOCAB, bias=False)
        self.O.weight = self.E.weight
        self.register_buffer("scale", torch.tensor(1.5))

    def forward(self, input_ids: Tensor, labels: Tensor) -> Output:
        x = self.E(input_ids)
        for block in self.stack:
            x = block(x)
        logits = self.O(x) * self.scale
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        return Output(loss, x.square().mean())


class Rows:
    """Row n is a function of n alone; every process takes its turn of `batch` rows."""

    def __init__(self, batch: int, rank: int = 0, size: int = 1) -> None:
        self.batch, self.rank, self.size, self.row = batch, rank, size, 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        first = self.row + self.rank * self.batch
        self.row += self.size * self.batch
        return make(range(first, first + self.batch))

    def state_dict(self) -> dict[str, int]:
        return {"row": self.row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.row = state["row"]


def make(rows: range) -> Batch:
    """Noisy counting; some labels are ignored, a different number in every row."""
    tokens = []
    labels = []
    for row in rows:
        draw = torch.Generator().manual_seed(row)
        start = torch.randint(VOCAB, (1,), generator=draw)
        line = (start + torch.arange(CONTEXT + 1)) % VOCAB
        tokens.append(line[:-1])
        labels.append(line[1:].clone())
        labels[-1][: row % 5] = -100
    return {"input_ids": torch.stack(tokens), "labels": torch.stack(labels)}


def validation() -> list[Batch]:
    return [make(range(10_000 + 4 * index, 10_004 + 4 * index)) for index in range(3)]


def job(batch: int = 4, rank: int = 0, size: int = 1, dropout: float = 0.1) -> Job:
    torch.manual_seed(0)
    return Job(Toy(dropout=dropout), Feed(Rows(batch, rank, size), validation))


def recipe(**changes: object) -> Recipe:
    """A short run; `changes` are its sections."""
    settings = {
        "graph": {"use": "atinuke"},
        "data": {"train": ["x.txt"], "context": CONTEXT},
        "tokenizer": {"vocab_size": 300},
        "optimiser": {"name": "adamw", "lr": 1e-2},
        "schedule": {"name": "cosine", "warmup": 3},
        "steps": 20,
        "batch": 4,
        "evaluate_every": 7,
        "save_every": 5,
        **changes,
    }
    return Recipe.model_validate(settings)


def folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path
