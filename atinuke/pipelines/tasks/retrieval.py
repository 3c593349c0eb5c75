"""Pairs of texts that belong together, such as translations: whether each finds its partner among all others."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.graph import Graph
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.heads import Pool, mask, pooled, with_head
from atinuke.pipelines.objective import Objective
from atinuke.pipelines.objective_labels import SupervisedContrastive
from atinuke.pipelines.scores.retrieval import ranks, recalls, reciprocal
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.task import LABELS, Array, Item, Task, Window
from atinuke.pipelines.tasks.columns import Layout, read
from atinuke.pipelines.tasks.framing import band, framed, named, read_as, text_of

VECTORS = "vectors"


class Retrieval(Task):
    """The vectors of two columns `texts`, made by one encoder as `pool` says and compared by their cosines: the first
    text finds the second among all of the file, and back. Recall at 1, 5 and 10, and the mean reciprocal rank.

    In training the two come closer to each other than to all other texts of the batch, whose rows are pairs, by
    cosines divided by `temperature`. The head has no weights, so that any encoder may be measured as it is. A text that
    comes several times is asked for once, and all its partners are right. `slices` are columns by whose values the
    scores are told apart too.
    """

    together: ClassVar[bool] = True

    name: Literal["retrieval"]
    texts: Annotated[tuple[str, str], Field(strict=False)]
    id: str | None = None
    pool: Pool = "mean"
    temperature: Annotated[float, Field(gt=0)] = 0.05
    slices: Annotated[tuple[str, ...], Field(strict=False)] = ()

    def load(self, file: Path) -> list[Item]:
        items: dict[str, Item] = {}
        for found in read(file, (Layout(self.texts, id=self.id),), self.name):
            first, second = (text_of(found.values[name], name, found.where) for name in self.texts)
            name = str(found.number if self.id is None else found.values[self.id])
            if name in items:
                raise fail(f"has the id `{name}` twice", where=found.where)
            slices = {"words": band([first]), **named(self.slices, found)}
            items[name] = Item(name, found.where, (first, second), True, slices)
        return list(items.values())

    def encode(self, item: Item, texts: Texts) -> list[Window]:
        """A window for each text; pairs with the same first text have one label."""
        label = np.array(int.from_bytes(hashlib.sha256(item.given[0].encode()).digest()[:7]), np.int64)
        found = [framed(item, (one,), texts, self.length) for one in item.given]
        return [Window({"input_ids": one.ids, "segment_ids": one.segments, LABELS: label}) for one in found]

    def head(self, checked: CheckedGraph) -> Graph:
        nodes, wire, _ = pooled(checked, self.pool, 0.0)
        return with_head(checked, nodes, {VECTORS: wire}, mask(checked))

    def objective(self) -> Objective:
        return SupervisedContrastive(name="supervised_contrastive", temperature=self.temperature)

    def decode(self, item: Item, windows: Sequence[Window], outputs: Sequence[Mapping[str, Array]]) -> Any:
        return [one[VECTORS] for one in outputs]

    def settle(self, items: Sequence[Item], found: Sequence[Any]) -> list[Any]:
        """The rank of the best right text for each item, there and back; none where the text was asked for before."""
        vectors = np.array(found, np.float64)
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        first, second = (vectors / np.where(lengths == 0, 1, lengths)).swapaxes(0, 1)
        there, back = ranks(first, second, *([item.given[side] for item in items] for side in (0, 1)))
        return [list(both) for both in zip(there, back, strict=True)]

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        there, back = zip(*predictions, strict=True)
        return (
            *(reciprocal("", there), *recalls("", there)),
            *(reciprocal(" back", back), *recalls(" back", back)),
        )

    def files(self, items: Sequence[Item], predictions: Sequence[Any]) -> dict[str, str]:
        return {}

    def reads(self, texts: Texts) -> dict[str, dict[str, Any]]:
        return read_as(texts, self.length)
