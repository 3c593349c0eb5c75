"""GAP: which of two names a pronoun means, or neither (Webster et al., 2018), told by the clusters of a run that was
trained on coreference."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import Place, fail
from atinuke.core.graph import Graph
from atinuke.pipelines import text
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.task import Array, Item, Window, in_order
from atinuke.pipelines.tasks.coreference import Clusters, Coreference, Words
from atinuke.pipelines.tasks.mentions import TRUTH, Ambiguous, gap

WORD = re.compile(r"\w+|[^\w\s]")


class GAP(Coreference):
    """F1 of whether the pronoun means A, and whether it means B, over all pronouns and by their gender, as gap_scorer
    counts it.

    It means a name where the name, or a mention that ends with it (`President Obama`), is in the pronoun's cluster.
    """

    name: Literal["gap"]  # type: ignore[assignment]

    def load(self, file: Path) -> list[Item]:
        items: list[Item] = []
        places: dict[str, int | None] = {}
        for row in gap(file):
            if row.id in places:
                raise fail(f"has the id `{row.id}` twice", f"also in line {places[row.id]}", where=row.where)
            places[row.id] = row.where.line
            items.append(Item(row.id, row.where, row, (row.a.meant, row.b.meant), {"gender": row.gender}))
        if not items:
            raise fail("has no pronoun", where=str(file))
        return items

    def gold(self, item: Item) -> Clusters | None:
        return None

    def head(self, checked: CheckedGraph) -> Graph:
        fix = "train on `coreference`, and measure the run by --task gap"
        raise fail("a file of GAP does not say all that means the same", where="task", fix=fix)

    def words(self, item: Item, texts: Texts) -> Words:
        pieces = texts.pieces(item.given.text)
        bounds = _bounds(item.given)
        starts = np.searchsorted(pieces.offsets[:, 1], bounds[:, 0], side="right")
        stops = np.searchsorted(pieces.offsets[:, 0], bounds[:, 1])
        return Words(pieces, starts, stops, np.zeros(len(bounds), np.int64))

    def decode(self, item: Item, windows: Sequence[Window], outputs: Sequence[Mapping[str, Array]]) -> Any:
        given: Ambiguous = item.given
        bounds = _bounds(given)
        pronoun = given.start, given.start + len(given.pronoun)
        for cluster in self.clusters(windows, outputs):
            mentions = [(int(bounds[start, 0]), int(bounds[stop - 1, 1])) for start, stop in cluster]
            if pronoun in mentions:
                names = ((one.start, one.start + len(one.text)) for one in (given.a, given.b))
                return [any(m[0] <= start and m[1] == stop for m in mentions) for start, stop in names]
        return [False, False]

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        right, said = np.array([item.gold for item in items], bool), np.array(predictions, bool)
        common = (right & said).sum(1)
        return (Score("f1", "f1", np.stack([common, right.sum(1), common, said.sum(1)], 1).astype(np.float64)),)

    def files(self, items: Sequence[Item], predictions: Sequence[Any]) -> dict[str, str]:
        """What gap_scorer reads."""
        lines = (
            "\t".join([i.id, *(str(one).upper() for one in said)]) for i, said in zip(items, predictions, strict=True)
        )
        return {"predictions.tsv": "".join(f"{line}\n" for line in lines)}

    def predictions(self, file: Path, items: Sequence[Item]) -> list[Any]:
        found: dict[str, list[bool]] = {}
        for number, line in enumerate(text.lines(file), 1):
            name, *said = line.rstrip("\r\n").split("\t")
            where = Place(str(file), number)
            if len(said) != 2 or not all(one.upper() in TRUTH for one in said):
                raise fail("is not an id, and TRUE or FALSE for A and for B", where=where)
            if name in found:
                raise fail(f"has the id `{name}` twice", where=where)
            found[name] = [TRUTH[one.upper()] for one in said]
        return in_order(file, found, items)


def _bounds(given: Ambiguous) -> Array:
    """The first character of each word, and the one behind its last, `[words, 2]`: of runs of letters and digits, and
    of other characters one by one."""
    return np.array([match.span() for match in WORD.finditer(given.text)], np.int64).reshape(-1, 2)
