"""Several objectives at once."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.graph import Graph
from atinuke.pipelines.objective import Added, Given, Making, Objective
from atinuke.pipelines.sampler import Batch
from atinuke.pipelines.tokenizer import Tokenizer


class Sum(Objective):
    """The sum of the losses of other objectives, each times its `weight`.

    What each gives is called by its name: `masked_loss`, `classification_loss`, `classification_accuracy`; the second
    one of a name is `classification2_loss`. Each loss is a mean over its own labels.

    ```yaml
    objective:
      name: sum
      of:
        - {name: masked}
        - {name: classification, scores: next, labels: next_labels, weight: 0.5}
    ```
    """

    name: Literal["sum"]
    of: Annotated[tuple[Objective, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _parts_can_be_summed(self) -> Self:
        if len(self.of) < 2:
            raise ValueError("must have two parts or more in `of`")
        if any(part.losses for part in self.of):
            raise ValueError("has `losses` in a part: name them beside `of`")
        return self

    def _parts(self, prefix: str = "") -> Iterator[tuple[str, Objective]]:
        """Each part, and what its names begin with."""
        seen: list[str] = []
        for part in self.of:
            name = part.name.rpartition(":")[2]
            seen.append(name)
            count = seen.count(name)
            yield f"{prefix}{name}{count if count > 1 else ''}_", part

    def added(self, checked: CheckedGraph, prefix: str = "") -> Added:
        parts = [part.added(checked, begin) for begin, part in self._parts(prefix)]
        names = [name for part in parts for name in (*part.nodes, *part.inputs)]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            fix = "give each its own output, and its own labels by `labels`"
            raise fail(f"two parts of the sum are about `{twice[0]}`", where="objective.of", fix=fix)
        return Added(
            {name: node for part in parts for name, node in part.nodes.items()},
            {name: given for part in parts for name, given in part.inputs.items()},
            {name: wire for part in parts for name, wire in part.outputs.items()},
            {name: axis for part in parts for name, axis in part.axes.items()},
            frozenset().union(*(part.replaces for part in parts)),
        )

    def own(self, prefix: str = "") -> dict[str, float]:
        return {
            name: self.weight * weight
            for begin, part in self._parts(prefix)
            for name, weight in part.own(begin).items()
        }

    def counted(self, prefix: str = "") -> dict[str, str]:
        return {name: labels for begin, part in self._parts(prefix) for name, labels in part.counted(begin).items()}

    def kept(self, graph: Graph) -> Sequence[str]:
        parts = (name for part in self.of for name in part.kept(graph))
        return list(dict.fromkeys((*super().kept(graph), *parts)))

    @property
    def needs_tokenizer(self) -> bool:
        return any(part.needs_tokenizer for part in self.of)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(token for part in self.of for token in part.special_tokens))

    def vocabulary(self, tokenizer: Tokenizer | None) -> int:
        return max(part.vocabulary(tokenizer) for part in self.of)

    def gives(self, given: Given, making: Making) -> dict[str, tuple[str, int]]:
        for part in self.of:
            given = part.gives(given, making)
        return dict(given)

    def batch(self, batch: Batch, numbers: Sequence[int], making: Making) -> Batch:
        for part in self.of:
            batch = part.batch(batch, numbers, making)
        return batch
