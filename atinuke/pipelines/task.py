"""A benchmark as one class: how its official files are read, what a model reads of them and which head it gets, what it
is trained for, and how its answers become predictions and scores.

```yaml
pretrained: models/minilm            # a model folder; or `graph` and `tokenizer`
task: {name: sst2, train: SST-2/train.tsv, validation: SST-2/dev.tsv, length: 64}
optimiser: {name: adamw, lr: 5e-5}
schedule: {name: cosine, warmup: 100}
steps: 2000
batch: 32
```

An `Item` is what is asked once: a sentence, a question with its text. It becomes one or more windows, each a row of a
batch. What it brings to a score are a few numbers, so that the score can be had of any part of the items, or any draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from rich.console import Console

from atinuke.core.checked import CheckedGraph
from atinuke.core.component import Choice
from atinuke.core.errors import Place, fail
from atinuke.core.graph import Graph
from atinuke.core.registry import Registry
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.objective import Objective
from atinuke.pipelines.sampler import IGNORED, Batch
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.section import Chosen

if TYPE_CHECKING:
    from atinuke.pipelines.run import Trained

Array = NDArray[Any]
Files = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value), Field(strict=False)
]
"""One file, or several; patterns too."""
Positive = Annotated[int, Field(gt=0, lt=2**31)]
LABELS, MASK = "labels", "attention_mask"


@dataclass(frozen=True)
class Item:
    """One thing that is asked: what is `given`, and what is right, `gold`, which is None in a file without answers.

    `slices` are the parts of the data that it is counted in, by what tells them apart: `{"genre": "news"}`. Items of
    one `group`, such as the questions about one text, hang together; "" is a group of its own.
    """

    id: str
    where: Place | str
    given: Any
    gold: Any = None
    slices: Mapping[str, str] = field(default_factory=dict)
    group: str = ""


@dataclass(frozen=True)
class Window:
    """What the model reads at once: arrays by the names of the graph's inputs, one position or one number each; and
    what `decode` has to know of them."""

    inputs: Mapping[str, Array]
    known: Any = None


class Task(Chosen):
    """What every task has: files in its official format, plain or gzipped, and the `length` of a window in tokens.

    A new task is a subclass; a plugin names it in the hook `atinuke_tasks`. Files are found relative to the recipe.
    """

    together: ClassVar[bool] = False
    """Whether the windows of an item belong into one batch in training, count as one of its rows, and are told from the
    others."""

    train: Files = ()
    validation: Files = ()
    length: Positive = 128

    @classmethod
    def find(cls, name: str) -> Choice:
        return Registry().task(name)

    def load(self, file: Path) -> list[Item]:
        """The items of a file in its official format.

        Raises:
            AtinukeError: it is not of that format, with the line.
        """
        raise NotImplementedError

    def encode(self, item: Item, texts: Texts) -> list[Window]:
        """The windows of an item: at least one, of at most `length` tokens each, with labels where it has a gold.

        Raises:
            AtinukeError: it cannot be encoded.
        """
        raise NotImplementedError

    def head(self, checked: CheckedGraph) -> Graph:
        """The graph of a pretrained model with what the task adds, without what it does not need.

        Raises:
            AtinukeError: the graph does not give what the task needs.
        """
        raise NotImplementedError

    @property
    def answers(self) -> object:
        """What the head says. A task can be answered by a run that was trained on another with the same answers."""
        return self.name

    @property
    def told_by(self) -> str:
        """What a file that says what is right has, in words for an error."""
        return "answers"

    def objective(self) -> Objective:
        """What the graph with the head is trained for."""
        raise NotImplementedError

    def collate(self, windows: Sequence[Window]) -> Batch:
        """A batch: sequences filled up with zeros, labels with -100, and `attention_mask`, which says where tokens
        are."""
        batch: Batch = {}
        for name, first in windows[0].inputs.items():
            arrays = [window.inputs[name] for window in windows]
            if first.ndim:
                shape = np.max([array.shape for array in arrays], 0)
                filled = np.full((len(arrays), *shape), IGNORED if name == LABELS else 0, first.dtype)
                for row, array in zip(filled, arrays, strict=True):
                    row[tuple(map(slice, array.shape))] = array
                batch[name] = torch.from_numpy(filled)
            else:
                batch[name] = torch.from_numpy(np.stack(arrays))
        lengths = torch.tensor([len(window.inputs["input_ids"]) for window in windows])
        batch[MASK] = torch.arange(int(lengths.max())) < lengths[:, None]
        return batch

    def decode(self, item: Item, windows: Sequence[Window], outputs: Sequence[Mapping[str, Array]]) -> Any:
        """The prediction for an item, as JSON can hold it, from what the graph gives for each of its windows, without
        the positions that were filled up."""
        raise NotImplementedError

    def settle(self, items: Sequence[Item], found: Sequence[Any]) -> list[Any]:
        """The predictions for all items, as JSON can hold them, out of what `decode` gives for each: that itself, where
        an answer does not depend on other items."""
        return list(found)

    def reads(self, texts: Texts) -> dict[str, dict[str, Any]]:
        """How a deployed model reads what people have, by input, in the words of a bundle's fields (see
        `atinuke.runtime.fields`); nothing where it takes arrays."""
        return {}

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """The names of the last axis of an output, by output."""
        return {}

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        """What each item, with its gold, brings to each score; the score that the task is known by comes first."""
        raise NotImplementedError

    def files(self, items: Sequence[Item], predictions: Sequence[Any]) -> dict[str, str]:
        """Files with all predictions in the task's official format, their contents by name."""
        raise NotImplementedError

    def predictions(self, file: Path, items: Sequence[Item]) -> list[Any]:
        """The predictions for items in a file of the task's official format, whoever made them.

        Raises:
            AtinukeError: it is not of that format, or its ids are not those of the items.
        """
        raise fail(f"predictions for {self.name} cannot be read", where=str(file), fix="evaluate the run itself")


class Untrained(Task):
    """A task that asks what a model says by itself, as texts that it writes: any run or model folder that can is
    measured as it is, and nothing is trained for it.

    `batch` items go through the model at once; `length` is that of the longest text of the model in tokens.
    """

    batch: Positive = 8

    def predict(self, run: "Trained", folder: Path, items: Sequence[Item], console: Console) -> list[Any]:
        """The prediction for each item, as JSON can hold it, of the model in a folder.

        Raises:
            AtinukeError: the model cannot be asked, or gives what is no number.
        """
        raise NotImplementedError

    def files(self, items: Sequence[Item], predictions: Sequence[Any]) -> dict[str, str]:
        return {}


def in_order(file: Path, said: Mapping[str, Any], items: Sequence[Item]) -> list[Any]:
    """Predictions by id, in the order of the items.

    Raises:
        AtinukeError: the ids are not those of the items.
    """
    missing, unknown = [item.id for item in items if item.id not in said], said.keys() - {item.id for item in items}
    if missing or unknown:
        told = [f"{len(missing):,} have no prediction: {', '.join(missing[:3])}"] if missing else []
        told += [f"{len(unknown):,} are not in the data: {', '.join(sorted(unknown)[:3])}"] if unknown else []
        raise fail("its ids are not those of the data", *told, where=str(file), fix="give the data it was made for")
    return [said[item.id] for item in items]
