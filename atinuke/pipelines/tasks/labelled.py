"""Tasks that give a text, or a pair of texts, one of a few labels or a number: GLUE and inference."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import Place, fail
from atinuke.core.graph import Graph, Wire
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.heads import Pool, mask, pooled, with_head
from atinuke.pipelines.objective import Objective, node
from atinuke.pipelines.objective_labels import Classification, Regression
from atinuke.pipelines.scores.glue import accuracy
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.task import LABELS, Array, Item, Task, Window, in_order
from atinuke.pipelines.tasks.columns import Found, Layout, read
from atinuke.pipelines.tasks.framing import band, framed, named, read_as, text_of

LOGITS, VALUES = "logits", "values"
LEFT_OUT = "-"  # the label of pairs that people did not agree on (Bowman et al., 2015)


class Labelled(Task):
    """A vector of the text, made as `pool` says, and a score for each label.

    What is longer than `length` loses its end, the longer of two texts first. Where a tokenizer puts nothing between
    the two, `between` names the token that stands there. `slices` are columns by whose values scores are told apart
    too, beside the label and the number of words.
    """

    if TYPE_CHECKING:  # a benchmark has these as class variables; where files differ they are settings

        @property
        def layouts(self) -> tuple[Layout, ...]:
            """The columns that files may have."""

        @property
        def labels(self) -> Mapping[str, str]:
            """The labels in the order of their numbers: as they are written in files, and as predictions call them."""

    spellings: ClassVar[Mapping[str, str]] = {}
    """Other ways in which files write a label."""
    submission: ClassVar[str | None] = None
    """The name of GLUE's file for predictions."""

    pool: Pool = "mean"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    between: str | None = None
    slices: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @property
    def told_by(self) -> str:
        return f"the column `{self.layouts[0].label}`"

    def load(self, file: Path) -> list[Item]:
        items: list[Item] = []
        places: dict[str, Place] = {}
        for found in read(file, self.layouts, self.name):
            if found.layout.label and self.leaves_out(found.values[found.layout.label]):
                continue
            item = self._item(found)
            if item.id in places:
                raise fail(f"has the id `{item.id}` twice", f"also in line {places[item.id].line}", where=item.where)
            places[item.id] = found.where
            items.append(item)
        if not items:
            raise fail("has no row with a label", where=str(file))
        return items

    def leaves_out(self, label: object) -> bool:
        """Whether rows of a label are not asked."""
        return label == LEFT_OUT

    def _item(self, found: Found) -> Item:
        layout, values, where = found.layout, found.values, found.where
        texts = tuple(text_of(values[name], name, where) for name in layout.texts)
        gold = None if layout.label is None else self.gold(values[layout.label], where)
        slices = {"words": band(texts), **self.marks(gold), **named(self.slices, found)}
        return Item(str(found.number if layout.id is None else values[layout.id]), where, texts, gold, slices)

    def gold(self, value: object, where: Place) -> Any:
        """What is right, out of a cell."""
        told = self.spellings.get(str(value), str(value))
        if isinstance(value, bool) or told not in self.labels:
            raise fail(f"`{value}` is no label of {self.name}", f"expected: {', '.join(self.labels)}", where=where)
        return list(self.labels).index(told)

    def marks(self, gold: Any) -> dict[str, str]:
        """Slices by what is right."""
        return {} if gold is None else {"label": list(self.labels.values())[gold]}

    def encode(self, item: Item, texts: Texts) -> list[Window]:
        found = framed(item, item.given, texts, self.length, self.between)
        inputs: dict[str, Array] = {"input_ids": found.ids, "segment_ids": found.segments}
        return [Window(inputs if item.gold is None else {**inputs, LABELS: self.target(item.gold)})]

    def target(self, gold: Any) -> Array:
        """What is right as the input `labels`."""
        return np.array(gold, np.int64)

    def head(self, checked: CheckedGraph) -> Graph:
        nodes, wire, d_model = pooled(checked, self.pool, self.dropout)
        nodes["task_head"] = node("head.classification", {"x": wire}, d_model=d_model, classes=len(self.labels))
        return with_head(checked, nodes, {LOGITS: Wire("task_head")}, mask(checked))

    @property
    def answers(self) -> object:
        return tuple(self.labels.values())

    def objective(self) -> Objective:
        return Classification(name="classification")

    def decode(self, item: Item, windows: Sequence[Window], outputs: Sequence[Mapping[str, Array]]) -> Any:
        return list(self.labels.values())[int(outputs[0][LOGITS].argmax())]

    def reads(self, texts: Texts) -> dict[str, dict[str, Any]]:
        between = None if self.between is None else texts.token(self.between)
        return read_as(texts, self.length, len(self.layouts[0].texts) > 1, between)

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        return {LOGITS: tuple(self.labels.values())}

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        names = list(self.labels.values())
        return self.scores(np.array([one.gold for one in items]), np.array([names.index(one) for one in predictions]))

    def scores(self, right: Array, said: Array) -> tuple[Score, ...]:
        """The scores of the labels that are right and those that were said, by number."""
        return (accuracy(right, said),)

    def files(self, items: Sequence[Item], predictions: Sequence[Any]) -> dict[str, str]:
        rows = [f"{item.id}\t{self.written(one)}" for item, one in zip(items, predictions, strict=True)]
        return {f"{self.submission or self.name}.tsv": "\n".join(["index\tprediction", *rows, ""])}

    def written(self, prediction: Any) -> str:
        """A prediction as it stands in a file."""
        return str(prediction)

    def predictions(self, file: Path, items: Sequence[Item]) -> list[Any]:
        said: dict[str, Any] = {}
        for found in read(file, (Layout(("prediction",), id="index"),), "a file of predictions"):
            name, value = found.values["index"], found.values["prediction"]
            if name in said:
                raise fail(f"has the id `{name}` twice", where=found.where)
            said[name] = self.understood(value, found.where)
        return in_order(file, said, items)

    def understood(self, value: object, where: Place) -> Any:
        """A prediction, out of a cell."""
        if value not in self.labels.values():
            told = f"expected: {', '.join(self.labels.values())}"
            raise fail(f"`{value}` is no label of {self.name}", told, where=where)
        return value


class Rated(Labelled):
    """A number between `low` and `high` for a pair of texts."""

    labels: ClassVar[Mapping[str, str]] = {}
    low: ClassVar[float]
    high: ClassVar[float]

    def gold(self, value: object, where: Place) -> Any:
        try:
            found = float(str(value))  # a truth value in JSON is no number then
        except ValueError:
            found = math.nan
        if not self.low <= found <= self.high:
            raise fail(f"`{value}` is no number from {self.low:g} to {self.high:g}", where=where)
        return found

    def marks(self, gold: Any) -> dict[str, str]:
        return {}

    def target(self, gold: Any) -> Array:
        return np.array(gold, np.float32)

    def head(self, checked: CheckedGraph) -> Graph:
        nodes, wire, d_model = pooled(checked, self.pool, self.dropout)
        nodes["task_head"] = node("head.regression", {"x": wire}, d_model=d_model)
        return with_head(checked, nodes, {VALUES: Wire("task_head")}, mask(checked))

    @property
    def answers(self) -> object:
        return self.low, self.high

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        return {}

    def objective(self) -> Objective:
        return Regression(name="regression")

    def decode(self, item: Item, windows: Sequence[Window], outputs: Sequence[Mapping[str, Array]]) -> Any:
        return float(outputs[0][VALUES])

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        return self.scores(np.array([item.gold for item in items]), np.array(predictions))

    def understood(self, value: object, where: Place) -> Any:
        return self.gold(value, where)

    def written(self, prediction: Any) -> str:
        return f"{min(max(prediction, self.low), self.high):.3f}"
