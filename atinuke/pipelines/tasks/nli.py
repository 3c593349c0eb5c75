"""Natural language inference: does a hypothesis follow from a premise, contradict it, or neither?"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from atinuke.pipelines.tasks.columns import Layout
from atinuke.pipelines.tasks.glue import INFERENCE, PAIR
from atinuke.pipelines.tasks.labelled import Labelled


class SNLI(Labelled):
    """The Stanford corpus (Bowman et al., 2015) as published, .jsonl or .txt, and sets in its form. Accuracy; pairs
    without a gold label (`-`) are left out."""

    name: Literal["snli"]
    labels: ClassVar[Mapping[str, str]] = INFERENCE
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(PAIR, "gold_label", "pairID"),
        Layout(("premise", "hypothesis"), "label"),
        Layout(("premise", "hypothesis")),
    )


class ANLI(Labelled):
    """Adversarial inference (Nie et al., 2020) as published: .jsonl with `context`, `hypothesis` and a letter."""

    name: Literal["anli"]
    labels: ClassVar[Mapping[str, str]] = INFERENCE
    spellings: ClassVar[Mapping[str, str]] = {"e": "entailment", "n": "neutral", "c": "contradiction"}
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(("context", "hypothesis"), "label", "uid"),
        Layout(("premise", "hypothesis"), "label", "uid"),
    )
