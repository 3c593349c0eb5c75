"""Answers that stand in a text: SQuAD v1.1 (Rajpurkar et al., 2016) and v2.0 (Rajpurkar et al., 2018).

A text that is too long for the model becomes several windows, each with the question in front. Spans of all windows
compete by the sum of the scores of their ends, and a token counts only in the window where most stands around it
(Devlin et al., 2019). The first position of a window stands for "not here".
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.graph import Graph, Wire
from atinuke.pipelines.encoding import Pieces, Texts
from atinuke.pipelines.heads import mask, vectors, with_head
from atinuke.pipelines.objective import Objective, node
from atinuke.pipelines.objective_labels import Span
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.scores.squad import squad1, squad2
from atinuke.pipelines.task import LABELS, Array, Item, Positive, Task, Window, in_order
from atinuke.pipelines.tasks.squad_file import Answer, answers, predicted, questions, text

SPAN = "span"
ASKED = ("what", "who", "when", "where", "which", "why", "how")
WORDS = (64, 128, 256)


@dataclass(frozen=True)
class Question:
    """A question about a text."""

    question: str
    context: str


@dataclass(frozen=True)
class Seen:
    """Which positions of a window are of the text: from `first` on, those in `offsets` `[tokens, 2]`; and which of them
    count here and in no other window, bool `[tokens]`."""

    first: int
    offsets: NDArray[np.int64]
    best: NDArray[np.bool_]


class SQuAD(Task):
    """Version 1.1: every question has an answer. Exact match and F1.

    Windows begin `stride` tokens apart; a question loses what is beyond `question_length` tokens. An answer has at most
    `answer_length` tokens; the `n_best` are kept with their probabilities among each other.
    """

    name: Literal["squad"]
    length: Positive = 384
    stride: Positive = 128
    question_length: Positive = 64
    answer_length: Positive = 30
    n_best: Positive = 20

    @property
    def answers(self) -> object:
        return SPAN

    def load(self, file: Path) -> list[Item]:
        items: list[Item] = []
        places: dict[str, str] = {}
        for title, number, context, where, qa in questions(file):
            name, question = (text(qa, key, where) for key in ("id", "question"))
            if name in places:
                raise fail(f"has the id `{name}` twice", f"also {places[name]}", where=where)
            places[name] = where
            gold = self.gold(qa, context, where)
            first = next((word for word in question.lower().split() if word in ASKED), "other")
            words = len(context.split())
            band = next((f"up to {most}" for most in WORDS if words <= most), f"from {WORDS[-1] + 1}")
            slices = {"question": first, "words": band, **self.marks(gold)}
            items.append(Item(name, where, Question(question, context), gold, slices, f"{title}/{number}"))
        if not items:
            raise fail("has no questions", where=str(file))
        return items

    def gold(self, qa: Mapping[str, Any], context: str, where: str) -> tuple[Answer, ...] | None:
        """The right answers; None where the file does not say."""
        found = answers(qa, context, where)
        if found == ():
            raise fail("has no answer", where=where, fix="use the task squad2 for questions without one")
        return found

    def marks(self, gold: tuple[Answer, ...] | None) -> dict[str, str]:
        """Slices by what is right."""
        return {}

    def encode(self, item: Item, texts: Texts) -> list[Window]:
        question, context = texts.pieces(item.given.question)[: self.question_length], texts.pieces(item.given.context)
        room = self.length - texts.added(pair=True) - len(question)
        if room < 1:
            told = f"it is {self.length}, and the question has {len(question)} tokens"
            raise fail("`length` has no room for a text", told, where="task.length", fix="set it higher")
        if self.stride > room:
            told = f"it is {self.stride}, but a window has {room} tokens of the text"
            fix = "set `stride` or `question_length` lower, or `length` higher"
            raise fail("`stride` leaves out tokens", told, where="task.stride", fix=fix)
        starts = range(0, max(1, len(context) - room + self.stride), self.stride)
        parts = [(start, min(start + room, len(context))) for start in starts]
        best = _best_window(parts, len(context))
        return [
            self._window(item, texts, question, context[start:stop], best[start:stop] == number)
            for number, (start, stop) in enumerate(parts)
        ]

    def _window(self, item: Item, texts: Texts, question: Pieces, part: Pieces, best: NDArray[np.bool_]) -> Window:
        found = texts.join(question, part)
        first = int(np.argmax(found.source == 1)) if len(part) else len(found)
        inputs: dict[str, Array] = {"input_ids": found.ids, "segment_ids": found.segments}
        if item.gold is not None:
            inputs[LABELS] = _marks(item.gold, part.offsets, first, len(found))
        return Window(inputs, Seen(first, part.offsets, best))

    def head(self, checked: CheckedGraph) -> Graph:
        wire, d_model = vectors(checked)
        nodes = {"task_head": node("head.classification", {"x": wire}, d_model=d_model, classes=2)}
        given = mask(checked) if "attention_mask" in checked.graph.inputs else {}
        return with_head(checked, nodes, {SPAN: Wire("task_head")}, given)

    def objective(self) -> Objective:
        return Span(name="span")

    def decode(self, item: Item, windows: Sequence[Window], outputs: Sequence[Mapping[str, Array]]) -> Any:
        found: dict[str, float] = {}
        for score, start, stop in sorted(self._spans(windows, outputs), reverse=True):
            found.setdefault(item.given.context[start:stop], score)
            if len(found) == self.n_best:
                break
        return self.chosen(found, min(float(one[SPAN][0].sum()) for one in outputs))

    def chosen(self, found: Mapping[str, float], nothing: float) -> dict[str, Any]:
        """The prediction, from the scores of texts, best first, and that of "no answer"."""
        best = _probabilities(found)
        return {"text": next(iter(best), ""), "n_best": best}

    def _spans(
        self, windows: Sequence[Window], outputs: Sequence[Mapping[str, Array]]
    ) -> Iterator[tuple[float, int, int]]:
        """The best spans of each window: scores, and characters of the text."""
        for window, output in zip(windows, outputs, strict=True):
            seen: Seen = window.known
            scores = output[SPAN][seen.first : seen.first + len(seen.offsets)]
            begins = [place for place in _top(scores[:, 0], self.n_best) if seen.best[place]]
            ends = _top(scores[:, 1], self.n_best)
            for begin in begins:
                for end in ends:
                    if begin <= end < begin + self.answer_length:
                        score = float(scores[begin, 0] + scores[end, 1])
                        yield score, int(seen.offsets[begin, 0]), int(seen.offsets[end, 1])

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        return squad1(*_sides(items, predictions))

    def files(self, items: Sequence[Item], predictions: Sequence[Any]) -> dict[str, str]:
        return {"predictions.json": _json({i.id: one["text"] for i, one in zip(items, predictions, strict=True)})}

    def predictions(self, file: Path, items: Sequence[Item]) -> list[Any]:
        """A question without a prediction counts 0, as the official script has it."""
        said = predicted(file)
        given = [item for item in items if item.id in said]
        found = dict(zip([item.id for item in given], in_order(file, said, given), strict=True))
        return [{"text": found.get(item.id)} for item in items]


class SQuAD2(SQuAD):
    """Version 2.0: some questions have no answer in the text. Exact match and F1.

    The answer is empty where the probability of "no answer", against the best span, is above `no_answer`.
    """

    name: Literal["squad2"]  # type: ignore[assignment]
    no_answer: Annotated[float, Field(ge=0, le=1)] = 0.5

    def gold(self, qa: Mapping[str, Any], context: str, where: str) -> tuple[Answer, ...] | None:
        found = answers(qa, context, where)
        if found is None:
            return None
        impossible = qa.get("is_impossible", False)
        if not isinstance(impossible, bool) or impossible == bool(found):
            told = f"is_impossible is {impossible!r:.40}, and there are {len(found)} answers"
            raise fail("must have answers, or be impossible", told, where=where)
        return found

    def marks(self, gold: tuple[Answer, ...] | None) -> dict[str, str]:
        return {} if gold is None else {"answer": "there" if gold else "none"}

    def chosen(self, found: Mapping[str, float], nothing: float) -> dict[str, Any]:
        best = max(found.values(), default=-math.inf)
        probability = 1 / (1 + math.exp(min(best - nothing, 700.0)))
        told = super().chosen(found, nothing)
        return {**told, "text": "" if probability > self.no_answer else told["text"], "no_answer": probability}

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        return squad2(*_sides(items, predictions)).scores

    def predictions(self, file: Path, items: Sequence[Item]) -> list[Any]:
        return [{"text": text} for text in in_order(file, predicted(file), items)]

    def files(self, items: Sequence[Item], predictions: Sequence[Any]) -> dict[str, str]:
        chances = {item.id: one["no_answer"] for item, one in zip(items, predictions, strict=True)}
        return {**super().files(items, predictions), "na_prob.json": _json(chances)}


def _marks(answers: Sequence[Answer], offsets: NDArray[np.int64], first: int, length: int) -> NDArray[np.int64]:
    """1 where an answer begins and where one ends, `[length, 2]`; at the first position where the window has none."""
    marks = np.zeros((length, 2), np.int64)
    for answer in answers:
        stop = answer.start + len(answer.text.rstrip())
        start = stop - len(answer.text.strip())
        inside = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < stop))
        if len(inside) and offsets[inside[0], 0] <= start and offsets[inside[-1], 1] >= stop:
            marks[first + inside[0], 0] = marks[first + inside[-1], 1] = 1
    if not marks.any():
        marks[0] = 1
    return marks


def _best_window(parts: Sequence[tuple[int, int]], length: int) -> NDArray[np.int64]:
    """For each token the window where the smaller of what stands before and behind it is largest."""
    places = np.arange(length)
    around = np.full((len(parts), length), -1.0)
    for row, (start, stop) in zip(around, parts, strict=True):
        inside = places[start:stop]
        row[start:stop] = np.minimum(inside - start, stop - 1 - inside) + 0.01 * (stop - start)
    best: NDArray[np.int64] = around.argmax(0)
    return best


def _top(scores: NDArray[Any], count: int) -> list[int]:
    """The places of the highest scores, best first."""
    found: list[int] = np.argsort(-scores, kind="stable")[:count].tolist()
    return found


def _probabilities(scores: Mapping[str, float]) -> dict[str, float]:
    top = max(scores.values(), default=0.0)
    powers = {text: math.exp(score - top) for text, score in scores.items()}
    return {text: power / sum(powers.values()) for text, power in powers.items()}


def _sides(items: Sequence[Item], predictions: Sequence[Any]) -> tuple[dict[str, list[str]], dict[str, str]]:
    right = {item.id: [answer.text for answer in item.gold] for item in items}
    said = {item.id: one["text"] for item, one in zip(items, predictions, strict=True)}
    return right, {name: text for name, text in said.items() if text is not None}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
