"""The nine tasks of GLUE (Wang et al., 2019) and its diagnostics, as its files have them, and as their sources do.

Predictions are written as the leaderboard takes them: `index` and `prediction`, in a file named after the task.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from atinuke.pipelines.scores.glue import glue
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.task import Array, Item
from atinuke.pipelines.tasks.columns import Layout
from atinuke.pipelines.tasks.labelled import Labelled, Rated

NO_YES = {"0": "0", "1": "1"}
INFERENCE = {"entailment": "entailment", "neutral": "neutral", "contradiction": "contradiction"}
FOLLOWS = {"entailment": "entailment", "not_entailment": "not_entailment"}
PAIR = ("sentence1", "sentence2")


class CoLA(Labelled):
    """The Corpus of Linguistic Acceptability (Warstadt et al., 2019). Matthews' correlation."""

    name: Literal["cola"]
    labels: ClassVar[Mapping[str, str]] = NO_YES
    submission: ClassVar[str | None] = "CoLA"
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(("sentence",), "label", header=("source", "label", "original_mark", "sentence")),
        Layout(("sentence",), id="index"),
    )

    def scores(self, right: Array, said: Array) -> tuple[Score, ...]:
        return *glue(self.name, right, said), *super().scores(right, said)


class SST2(Labelled):
    """The Stanford Sentiment Treebank (Socher et al., 2013). Accuracy."""

    name: Literal["sst2"]
    labels: ClassVar[Mapping[str, str]] = NO_YES
    submission: ClassVar[str | None] = "SST-2"
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(("sentence",), "label"),
        Layout(("sentence",), id="index"),
    )


class Paraphrases(Labelled):
    """F1 of pairs that say the same, and accuracy."""

    labels: ClassVar[Mapping[str, str]] = NO_YES

    def scores(self, right: Array, said: Array) -> tuple[Score, ...]:
        return glue(self.name, right, said)


class MRPC(Paraphrases):
    """The Microsoft Research Paraphrase Corpus (Dolan and Brockett, 2005)."""

    name: Literal["mrpc"]
    submission: ClassVar[str | None] = "MRPC"
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(("#1 String", "#2 String"), "Quality"),
        Layout(PAIR, "label"),
        Layout(("#1 String", "#2 String"), id="index"),
    )


class QQP(Paraphrases):
    """Quora Question Pairs (Iyer et al., 2017)."""

    name: Literal["qqp"]
    submission: ClassVar[str | None] = "QQP"
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(("question1", "question2"), "is_duplicate", "id"),
        Layout(("question1", "question2"), id="id"),
    )


class STSB(Rated):
    """The Semantic Textual Similarity Benchmark (Cer et al., 2017). Spearman's and Pearson's correlation."""

    name: Literal["stsb"]
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 5.0
    submission: ClassVar[str | None] = "STS-B"
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(PAIR, "score", "index"),
        Layout(PAIR, "score"),
        Layout(PAIR, id="index"),
    )

    def scores(self, right: Array, said: Array) -> tuple[Score, ...]:
        return glue(self.name, right, said)


class MNLI(Labelled):
    """Multi-Genre Natural Language Inference (Williams et al., 2018). Accuracy.

    `part` is what a file of predictions is named after: `m` for matched genres, `mm` for mismatched, `ax` for GLUE's
    diagnostics.
    """

    name: Literal["mnli"]
    part: Literal["m", "mm", "ax"] = "m"
    labels: ClassVar[Mapping[str, str]] = INFERENCE
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(PAIR, "gold_label", "pairID"),
        Layout(("premise", "hypothesis"), "label"),
        Layout(PAIR, id="index"),
    )

    def files(self, items: Sequence[Item], predictions: Sequence[Any]) -> dict[str, str]:
        (content,) = super().files(items, predictions).values()
        return {"AX.tsv" if self.part == "ax" else f"MNLI-{self.part}.tsv": content}


class QNLI(Labelled):
    """Questions of SQuAD, each with a sentence (Rajpurkar et al., 2016; Wang et al., 2019). Accuracy."""

    name: Literal["qnli"]
    labels: ClassVar[Mapping[str, str]] = FOLLOWS
    submission: ClassVar[str | None] = "QNLI"
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(("question", "sentence"), "label", "index"),
        Layout(("question", "sentence"), id="index"),
    )


class RTE(Labelled):
    """Recognising Textual Entailment 1, 2, 3 and 5 (Dagan et al., 2006, and others). Accuracy."""

    name: Literal["rte"]
    labels: ClassVar[Mapping[str, str]] = FOLLOWS
    submission: ClassVar[str | None] = "RTE"
    layouts: ClassVar[tuple[Layout, ...]] = (Layout(PAIR, "label", "index"), Layout(PAIR, id="index"))


class WNLI(Labelled):
    """The Winograd Schema Challenge as inference (Levesque et al., 2012). Accuracy."""

    name: Literal["wnli"]
    labels: ClassVar[Mapping[str, str]] = NO_YES
    submission: ClassVar[str | None] = "WNLI"
    layouts: ClassVar[tuple[Layout, ...]] = (Layout(PAIR, "label", "index"), Layout(PAIR, id="index"))
