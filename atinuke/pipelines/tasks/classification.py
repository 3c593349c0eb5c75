"""Texts, or pairs of texts, with labels, out of any table: its columns and labels are settings."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from atinuke.pipelines.scores.glue import macro_f1
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.task import Array
from atinuke.pipelines.tasks.columns import Layout
from atinuke.pipelines.tasks.labelled import Labelled


def _named(value: Any) -> Any:
    """A list of labels, each called as it is written."""
    return dict(zip(value, value, strict=True)) if isinstance(value, list | tuple) else value


class Classification(Labelled):
    """One of `labels` for the column `texts`, or for two. Accuracy, and the mean F1 of the labels.

    `labels` are a list in the order of their numbers, or a mapping of how files write them to how they are called: runs
    whose labels are called alike, in one order, can answer each other's files. Rows of labels in `left_out` are not
    read. A file without the column `label` is to be answered; without `id` a row is called by its number.
    """

    name: Literal["classification"]
    texts: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=2)] = ("text",)
    label: str = "label"
    id: str | None = None
    labels: Annotated[dict[str, str], BeforeValidator(_named), Field(min_length=2)]
    left_out: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if len(set(self.labels.values())) < len(self.labels):
            raise ValueError(f"`labels` calls two labels alike: {', '.join(self.labels.values())}")
        if both := sorted(set(self.left_out) & set(self.labels)):
            raise ValueError(f"`{both[0]}` is in `labels` and in `left_out`")
        if len({*self.texts, self.label, self.id}) < len(self.texts) + 2:
            raise ValueError("`texts`, `label` and `id` must be different columns")
        return self

    @property
    def layouts(self) -> tuple[Layout, ...]:
        return Layout(self.texts, self.label, self.id), Layout(self.texts, id=self.id)

    def leaves_out(self, label: object) -> bool:
        return str(label) in self.left_out

    def scores(self, right: Array, said: Array) -> tuple[Score, ...]:
        return *super().scores(right, said), macro_f1(right, said, len(self.labels))
