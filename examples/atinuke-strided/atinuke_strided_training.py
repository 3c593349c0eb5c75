"""An objective and a source of rows. A recipe finds them by name; only then is this file imported."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from atinuke.core.checked import CheckedGraph
from atinuke.core.graph import Wire
from atinuke.pipelines.objective import LOSS, Added, Objective, node, output
from atinuke.pipelines.rows import Listed, Row, Rows, Source


class Agreement(Objective):
    """The mean squared distance between the two outputs of `pair`, which are of one shape."""

    pair: Annotated[tuple[str, str], Field(strict=False)]

    def added(self, checked: CheckedGraph, prefix: str = "") -> Added:
        (first, _), (second, _) = (output(checked, name) for name in self.pair)
        loss = f"{prefix}{LOSS}"
        return Added({loss: node("loss.regression", {"values": first, "labels": second})}, {}, {loss: Wire(loss)})


class Counting(Source):
    """The numbers 1 to `count` as strokes: the columns are `text` and `number`."""

    count: Annotated[int, Field(gt=0)]

    def open(self) -> Rows:
        rows = [Row({"text": "|" * number, "number": number}, f"number {number}", Path()) for number in self.numbers]
        return Listed(rows, fingerprint=f"counting {self.count}")

    @property
    def numbers(self) -> range:
        return range(1, self.count + 1)
