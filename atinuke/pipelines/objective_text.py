"""Objectives whose labels are the tokens of the text itself, for graphs that end in head.vocabulary."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.graph import Graph, Input, Wire
from atinuke.core.rewrite import head_loss
from atinuke.pipelines.chat import TEMPLATE
from atinuke.pipelines.fields import ANSWERS
from atinuke.pipelines.objective import LOSS, Added, Given, Making, Objective, output, sizes
from atinuke.pipelines.sampler import IGNORED, Batch
from atinuke.pipelines.tokenizer import Tokenizer

TEXT, LABELS = "input_ids", "labels"
MASK = "<|mask|>"
HIDDEN, SWAPPED = 0.8, 0.1  # the shares of chosen tokens that become the mask token, and a random one


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
    def begins(self) -> bool:
        return True

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


class Answers(Vocabulary):
    """Predict the tokens that the assistant says in the conversations of the chat field `input_ids` of rows, given all
    before; those of others are read and not learnt.

    The tokens a b c of a conversation give the input a b c and, where the assistant says c, the labels -100 c -100. The
    field's mask is left out where the graph has no input for it, as for `NextTokens`. A tokenizer that is trained for
    the run gets the special tokens `marks`, such as `<|im_start|>`.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"rows"})
    unit: ClassVar[str] = "tokens"

    name: Literal["answers"]
    marks: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @property
    def needs_tokenizer(self) -> bool:
        return True

    @property
    def has_perplexity(self) -> bool:
        return not self.smoothing

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return self.marks

    def gives(self, given: Given, making: Making) -> dict[str, tuple[str, int]]:
        found = super().gives(given, making)
        if ANSWERS not in given:
            fix = f"let it be {{name: chat, column: messages, file: {TEMPLATE}, ...}}"
            raise fail(f"objective answers needs a chat field `{TEXT}`", where=f"rows.fields.{TEXT}", fix=fix)
        left_out = {ANSWERS, making.masks[TEXT]} - making.inputs
        return {name: kind for name, kind in found.items() if name not in left_out}

    def batch(self, batch: Batch, numbers: Sequence[int], making: Making) -> Batch:
        said = batch[TEXT].where(batch[ANSWERS] == 1, IGNORED)
        labels = torch.cat([said[:, 1:], torch.full_like(said[:, :1], IGNORED)], 1)
        left_out = {ANSWERS, making.masks[TEXT]} - making.inputs
        return {name: tensor for name, tensor in {**batch, LABELS: labels}.items() if name not in left_out}


class Seq2Seq(NextTokens):
    """Predict each next token of the text field `input_ids`, the target, given what else the graph reads, such as a
    picture, a sound or another text."""

    reads: ClassVar[frozenset[str]] = frozenset({"rows"})
    name: Literal["seq2seq"]


class Masked(Vocabulary):
    """Predict tokens that are hidden in a text (Devlin et al., 2019), of the texts of `data` or of the text field
    `input_ids` of rows.

    Of the tokens of each row `share` are chosen, at least one. Of these 80 % become the mask token, 10 % any token of
    the vocabulary, and 10 % stay; the labels of all others are -100. Special tokens and padding are never chosen. What
    is chosen follows from the seed and the number of the row: a resumed run chooses the same, and so does every
    evaluation.

    `mask_token` is a special token of the tokenizer (a tokenizer that is trained for the run gets it), or a free number
    beyond the tokens, for which the graph has room. Where the graph reads them, `data` gives it `attention_mask`, true
    for every token, and `segment_ids`, 0.
    """

    reads_of_windows: ClassVar[tuple[str, ...]] = (TEXT, "attention_mask", "segment_ids")

    name: Literal["masked"]
    share: Annotated[float, Field(gt=0, le=1)] = 0.15
    mask_token: str | Annotated[int, Field(ge=0)] = MASK

    @property
    def needs_tokenizer(self) -> bool:
        return isinstance(self.mask_token, str)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return (self.mask_token,) if isinstance(self.mask_token, str) else ()

    def vocabulary(self, tokenizer: Tokenizer | None) -> int:
        return max(super().vocabulary(tokenizer), 1 + self._mask(tokenizer))

    def gives(self, given: Given, making: Making) -> dict[str, tuple[str, int]]:
        found = super().gives(given, making)
        mask = making.masks[TEXT]
        if mask not in making.inputs:
            what = f"the graph has no input `{mask}`, the mask of the text"
            fix = f"let `mask` of the field `{TEXT}` name the graph's input that hides padding"
            raise fail(what, f"its inputs: {', '.join(sorted(making.inputs))}", where="rows.fields", fix=fix)
        return found

    def batch(self, batch: Batch, numbers: Sequence[int], making: Making) -> Batch:
        tokens, real = batch[TEXT].numpy(), batch[making.masks[TEXT]].numpy()
        special = list(making.tokenizer.special.values()) if making.tokenizer else []
        mask, vocabulary = self._mask(making.tokenizer), super().vocabulary(making.tokenizer)
        open_ = real & ~np.isin(tokens, special)
        given, labels = tokens.copy(), np.full_like(tokens, IGNORED)
        for row, number in enumerate(numbers):
            places = np.flatnonzero(open_[row])
            if not len(places):
                continue
            random = making.random(number)
            chosen = random.choice(places, max(1, round(self.share * len(places))), replace=False)
            fate = random.random(len(chosen))
            swapped = chosen[(fate >= HIDDEN) & (fate < HIDDEN + SWAPPED)]
            labels[row, chosen] = tokens[row, chosen]
            given[row, chosen[fate < HIDDEN]] = mask
            given[row, swapped] = random.integers(vocabulary, size=len(swapped))
        return {**batch, TEXT: torch.from_numpy(given), LABELS: torch.from_numpy(labels)}

    def windows(self, batch: Batch, numbers: Sequence[int], making: Making) -> Batch:
        mask = making.masks[TEXT]
        whole = {TEXT: batch[TEXT], mask: batch[LABELS] != IGNORED, "segment_ids": torch.zeros_like(batch[TEXT])}
        made = self.batch(whole, numbers, making)
        return {name: tensor for name, tensor in made.items() if name in making.inputs}

    def _mask(self, tokenizer: Tokenizer | None) -> int:
        if isinstance(self.mask_token, int):
            tokens = super().vocabulary(tokenizer)
            if self.mask_token < tokens:
                what = f"the number {self.mask_token} is that of a token, and cannot hide others"
                fix = f"let it be {tokens} or more, or name a special token"
                raise fail(what, where="objective.mask_token", fix=fix)
            return self.mask_token
        special = tokenizer.special if tokenizer else {}
        if self.mask_token not in special:
            raise fail(
                f"the tokenizer has no special token `{self.mask_token}` to hide others with",
                f"its special tokens: {', '.join(special) or 'none'}",
                where="objective.mask_token",
                fix="name one of them, or a number beyond the tokens for which the graph has room",
            )
        return special[self.mask_token]
