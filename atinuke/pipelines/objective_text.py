"""Objectives whose labels are the tokens of the text itself, for graphs that end in head.vocabulary."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.graph import Graph, Input, Wire
from atinuke.core.rewrite import head_loss
from atinuke.pipelines.objective import LOSS, Added, Given, Making, Objective, output, sizes
from atinuke.pipelines.sampler import IGNORED, Batch

TEXT, LABELS = "input_ids", "labels"


class Vocabulary(Objective):
    """The head that gives `logits` gives the loss instead, so that logits are never held whole.

    `smoothing` spreads that share of a label over the whole vocabulary (Szegedy et al., 2016).
    """

    reads: ClassVar[frozenset[str]] = frozenset({"data", "rows"})
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def added(self, checked: CheckedGraph, prefix: str = "") -> Added:
        name, head = head_loss(checked.graph, self.smoothing)
        labels = Input("int64", sizes(output(checked, "logits")[1].shape[:-1]))
        return Added({name: head}, {LABELS: labels}, {f"{prefix}{LOSS}": Wire(name)}, replaces=frozenset({name}))

    def counted(self, prefix: str = "") -> dict[str, str]:
        return {f"{prefix}{LOSS}": LABELS}

    def kept(self, graph: Graph) -> Sequence[str]:
        return [name for name in graph.outputs if name.endswith("_loss") or name in self.losses]

    def gives(self, given: Given, making: Making) -> dict[str, tuple[str, int]]:
        if TEXT not in making.masks:
            fix = f"add a field `{TEXT}: {{name: text, ...}}`, or choose another objective"
            raise fail(f"objective {self.name} needs a text field `{TEXT}`", where="rows.fields", fix=fix)
        return {**given, LABELS: ("int64", 2)}


class NextTokens(Vocabulary):
    """Predict each next token of the text field `input_ids` of rows.

    The tokens a b c of a row give the input E a b c and the labels a b c E, where E is the tokenizer's end of text: it
    begins a text as it ends it. The field's mask is left out where the graph has no input for it: padding stands behind
    the text, where no token sees it, and its labels are -100. A missing text has no labels.
    """

    unit: ClassVar[str] = "tokens"

    @property
    def needs_tokenizer(self) -> bool:
        return True

    @property
    def has_perplexity(self) -> bool:
        return not self.smoothing

    def gives(self, given: Given, making: Making) -> dict[str, tuple[str, int]]:
        found = super().gives(given, making)
        left_out = {making.masks[TEXT]} - making.inputs
        return {name: kind for name, kind in found.items() if name not in left_out}

    def batch(self, batch: Batch, numbers: Sequence[int], making: Making) -> Batch:
        assert making.tokenizer, "the feed refuses to go on without"
        tokens, mask = batch[TEXT], batch[making.masks[TEXT]]
        end = torch.full_like(tokens[:, :1], making.tokenizer.end_of_text)
        there = mask.any(1, keepdim=True)
        counts = torch.cat([there, mask], 1)  # of the places of the input
        length = mask.sum(1, keepdim=True)
        following = torch.cat([tokens, end], 1).scatter(1, length, making.tokenizer.end_of_text)
        made = {
            **batch,
            TEXT: torch.cat([end, tokens], 1),
            LABELS: following.where(counts, IGNORED),
            making.masks[TEXT]: counts,
        }
        left_out = {making.masks[TEXT]} - making.inputs
        return {name: tensor for name, tensor in made.items() if name not in left_out}


class Causal(NextTokens):
    """Predict each next token, of the texts of `data` or of the text field `input_ids` of rows."""

    name: Literal["causal"]

    def windows(self, batch: Batch, numbers: Sequence[int], making: Making) -> Batch:
        return batch


class Seq2Seq(NextTokens):
    """Predict each next token of the text field `input_ids`, the target, given what else the graph reads, such as a
    picture, a sound or another text."""

    reads: ClassVar[frozenset[str]] = frozenset({"rows"})
    name: Literal["seq2seq"]
