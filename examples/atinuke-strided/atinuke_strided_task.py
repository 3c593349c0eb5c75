"""A task in one file: how many words has a text? Each line of its files is a text, a tab, and the right number."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import Place, fail
from atinuke.core.graph import Graph, Wire
from atinuke.pipelines import text
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.heads import mask, pooled, with_head
from atinuke.pipelines.objective import Objective, node
from atinuke.pipelines.objective_labels import Regression
from atinuke.pipelines.scores.score import Score, mean_score
from atinuke.pipelines.task import Array, Item, Task, Window


class Lengths(Task):
    """The share of texts whose number of words, rounded, is right."""

    def load(self, file: Path) -> list[Item]:
        items = []
        for number, line in enumerate(text.lines(file), 1):
            where = Place(str(file), number)
            words, tab, count = line.rstrip("\n").partition("\t")
            if not tab or not count.isdecimal():
                raise fail("is not a text, a tab and a number", where=where)
            items.append(Item(str(number), where, words, int(count)))
        return items

    def encode(self, item: Item, texts: Texts) -> list[Window]:
        found = texts.join(texts.pieces(item.given)[: self.length - texts.added(pair=False)])
        inputs = {"input_ids": found.ids, "segment_ids": found.segments}
        return [Window({**inputs, "labels": np.array(item.gold, np.float32)})]

    def head(self, checked: CheckedGraph) -> Graph:
        nodes, vector, d_model = pooled(checked, "attention", dropout=0.0)
        nodes["task_head"] = node("head.regression", {"x": vector}, d_model=d_model)
        return with_head(checked, nodes, {"values": Wire("task_head")}, mask(checked))

    def objective(self) -> Objective:
        return Regression(name="regression")

    def decode(self, item: Item, windows: Sequence[Window], outputs: Sequence[Mapping[str, Array]]) -> int:
        return round(float(outputs[0]["values"]))

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        right = [item.gold == prediction for item, prediction in zip(items, predictions, strict=True)]
        return (mean_score("right", np.array(right, np.float64)),)

    def files(self, items: Sequence[Item], predictions: Sequence[Any]) -> dict[str, str]:
        return {"lengths.json": json.dumps(dict(zip([item.id for item in items], predictions, strict=True)))}
