"""Semantic role labelling: who did what to whom, for each predicate of a sentence (CoNLL-2005, Carreras and Màrquez,
2005; CoNLL-2012, Pradhan et al., 2012; Universal PropBank, Jindal et al., 2022).

Each word gets a tag, read at its first token (Shi and Lin, 2019). Which one is the predicate is added to the embedding
of its tokens (He et al., 2017), and the best sequence of tags is one in which no I-X stands alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.graph import Graph, Input, Node, Wire, frozen
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.heads import TEXT, mask, vectors, with_head
from atinuke.pipelines.objective import Objective, node
from atinuke.pipelines.objective_labels import Classification
from atinuke.pipelines.sampler import IGNORED
from atinuke.pipelines.scores.roles import PREDICATE, Span, roles, spans, tags
from atinuke.pipelines.scores.score import Score, mean_score
from atinuke.pipelines.task import LABELS, Array, Item, Positive, Task, Window
from atinuke.pipelines.tasks.propositions import Proposition, propositions

LOGITS, MARKS = "logits", "predicate"
MODIFIERS = (
    "ADJ", "ADV", "CAU", "COM", "CXN", "DIR", "DIS", "DSP", "EXT", "GOL", "LOC", "LVB", "MNR", "MOD", "NEG", "PNC",
    "PRD", "PRP", "PRR", "PRX", "REC", "REL", "SLC", "STR", "TMP",
)  # fmt: skip
ROLES = (*(f"ARG{i}" for i in range(6)), "ARGA", "ARG1-DSP", "ARGM", *(f"ARGM-{name}" for name in MODIFIERS))
NAMES = (PREDICATE, f"C-{PREDICATE}", *ROLES, *(f"{kind}-{role}" for kind in "CR" for role in ROLES))
"""PropBank's roles, continued (C-) and referred to (R-) too."""
TAGS = ("O", *(f"{begun}-{name}" for name in NAMES for begun in "BI"))
NUMBERS = {tag: number for number, tag in enumerate(TAGS)}
WORDS = (10, 20, 30)


@dataclass(frozen=True)
class Seen:
    """Which words of the sentence a window has, and the position of the first token of each."""

    words: NDArray[np.int64]
    positions: NDArray[np.int64]


class SRL(Task):
    """Files of CoNLL-2005, CoNLL-2012 or Universal PropBank; `target` is the column of the predicates' lemmas, from 1,
    in those of CoNLL-2005. F1 of arguments, as srl-eval counts them; `perfect` is the share of propositions without a
    mistake.

    Of a sentence that is longer than `length` a part around the predicate is read.
    """

    name: Literal["srl"]
    target: Positive = 7
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @property
    def answers(self) -> object:
        return TAGS

    def load(self, file: Path) -> list[Item]:
        items = []
        for found in propositions(file, self.target):
            given, where = found.given, found.where
            for start, _, label in found.right:
                if _spelt(label) not in NAMES:
                    told = f"expected one of PropBank's, such as ARG0, A0 or ARGM-TMP; word {start + 1}"
                    raise fail(f"`{label}` is no role", told, where=where)
            words = len(given.words)
            band = next((f"up to {most}" for most in WORDS if words <= most), f"from {WORDS[-1] + 1}")
            name = f"{found.document or file.name}:{given.sentence}.{given.predicate}"
            group = found.document or f"{file.name}:{given.sentence}"
            items.append(Item(name, where, given, found.right, {"words": band}, group))
        if not items:
            raise fail("has no predicate", where=str(file))
        return items

    def encode(self, item: Item, texts: Texts) -> list[Window]:
        given: Proposition = item.given
        pieces = texts.pieces(" ".join(given.words))
        ends = np.cumsum([len(word) + 1 for word in given.words])
        owners = np.searchsorted(ends, pieces.offsets[:, 0], side="right")
        places = np.flatnonzero(owners == given.predicate)
        if not len(places):
            told = f"it is `{given.words[given.predicate]}`"
            raise fail("the tokenizer has no token for the predicate", told, where=item.where)
        room = self.length - texts.added(pair=False)
        if room < 1:
            told = f"it is {self.length}"
            raise fail("`length` has no room for a text", told, where="task.length", fix="set it higher")
        start = min(max(0, int(places[0]) - room // 2), max(0, len(pieces) - room))
        part, owners = pieces[start : start + room], owners[start : start + room]
        found = texts.join(part)
        shown = found.source == 0
        first = int(np.argmax(shown))
        words, begins = np.unique(owners, return_index=True)
        marks = np.zeros(len(found), np.int64)
        marks[shown] = owners == given.predicate
        inputs: dict[str, Array] = {"input_ids": found.ids, "segment_ids": found.segments, MARKS: marks}
        if item.gold is not None:
            right = np.array([NUMBERS[tag] for tag in tags(_all_spelt(item.gold), len(given.words))])
            labels = np.full(len(found), IGNORED, np.int64)
            labels[first + begins] = right[words]
            inputs[LABELS] = labels
        return [Window(inputs, Seen(words, first + begins))]

    def head(self, checked: CheckedGraph) -> Graph:
        wire, d_model = vectors(checked)
        nodes: dict[str, Node] = {}
        if self.dropout:
            nodes["task_drop"] = node("dropout", {"x": wire}, rate=self.dropout)
            wire = Wire("task_drop")
        nodes["task_head"] = node("head.classification", {"x": wire}, d_model=d_model, classes=len(TAGS))
        given = mask(checked) if "attention_mask" in checked.graph.inputs else {}
        return _marked(with_head(checked, nodes, {LOGITS: Wire("task_head")}, given), checked)

    def objective(self) -> Objective:
        return Classification(name="classification")

    def decode(self, item: Item, windows: Sequence[Window], outputs: Sequence[Mapping[str, Array]]) -> Any:
        seen: Seen = windows[0].known
        scores = outputs[0][LOGITS][seen.positions]
        told = ["O"] * len(item.given.words)
        for word, tag in zip(seen.words.tolist(), viterbi(scores), strict=True):
            told[word] = TAGS[tag]
        # A word between two that the tokenizer has no token for ends the span before it.
        whole = [tag if i == 0 or not tag.startswith("I-") or told[i - 1][2:] == tag[2:] else f"B{tag[1:]}"
                 for i, tag in enumerate(told)]  # fmt: skip
        return [[start, stop, label] for start, stop, label in spans(whole)]

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        said = [[(start, stop, label) for start, stop, label in one] for one in predictions]
        found = roles([_all_spelt(item.gold) for item in items], said)
        rows = found.score.rows
        perfect = (rows[:, 0] == rows[:, 1]) & (rows[:, 0] == rows[:, 3])
        return found.score, mean_score("perfect", perfect.astype(np.float64))

    def files(self, items: Sequence[Item], predictions: Sequence[Any]) -> dict[str, str]:
        """The predicted props, as srl-eval reads them; the same of what is right, where that is known."""
        found = {"predicted.props": "".join(_props(items, predictions))}
        if all(item.gold is not None for item in items):
            found["right.props"] = "".join(_props(items, [_all_spelt(item.gold) for item in items]))
        return found

    def predictions(self, file: Path, items: Sequence[Item]) -> list[Any]:
        """Out of props as srl-eval reads them, of the data's predicates in its order."""
        found = list(propositions(file, target=1))
        for number, item in enumerate(items):
            told = f"expected word {item.given.predicate + 1} of {len(item.given.words)}"
            if number == len(found):
                raise fail(f"has {number:,} predicates, where the data has {len(items):,}", where=str(file))
            given = found[number].given
            if (len(given.words), given.predicate) != (len(item.given.words), item.given.predicate):
                got = f"got word {given.predicate + 1} of {len(given.words)}"
                raise fail(f"is not predicate {number + 1} of the data", told, got, where=found[number].where)
        if len(found) > len(items):
            raise fail("is a predicate that is not in the data", where=found[len(items)].where)
        return [[list(span) for span in _all_spelt(one.right)] for one in found]


def viterbi(scores: NDArray[np.floating[Any]]) -> list[int]:
    """The best sequence of `TAGS` by the sum of its scores `[words, tags]`, in which I-X follows B-X or I-X alone
    (Viterbi, 1967). As only I-X looks back, and at two tags, a step costs as much as there are tags."""
    inside = np.arange(2, len(TAGS), 2)
    best = scores[0].astype(np.float64)
    best[inside] = -np.inf
    back = np.zeros(scores.shape, np.int64)
    for place in range(1, len(scores)):
        before = best
        back[place] = before.argmax()
        goes_on = before[inside] >= before[inside - 1]
        back[place, inside] = np.where(goes_on, inside, inside - 1)
        best = before[back[place]] + scores[place]
    tag = int(best.argmax())
    path = [tag]
    for pointers in back[:0:-1]:
        tag = int(pointers[tag])
        path.append(tag)
    return path[::-1]


def _marked(graph: Graph, checked: CheckedGraph) -> Graph:
    """The graph with an embedding of the input `predicate` added to that of the tokens, wherever it is read.

    Raises:
        AtinukeError: no single text.embedding reads the tokens.
    """
    reads = [name for name, one in graph.nodes.items() if one.use == "text.embedding" and Wire(TEXT) in _feeds(one)]
    if len(reads) != 1:
        what = f"graph `{graph.name}` must read its tokens by one text.embedding, to which the predicate is added"
        raise fail(what, f"there are {len(reads)}: {', '.join(reads) or 'none'}", where=graph.place("nodes"))
    (source,) = reads
    size = checked.body.type_of(Wire(source)).shape[-1]

    def moved(wire: Wire) -> Wire:
        return Wire("task_marked") if wire.node == source else wire

    nodes: dict[str, Node] = {}
    for name, one in graph.nodes.items():
        if isinstance(one.inputs, tuple):
            nodes[name] = replace(one, inputs=tuple(map(moved, one.inputs)))
        else:
            nodes[name] = replace(one, inputs=frozen({port: moved(wire) for port, wire in one.inputs.items()}))
        if name == source:
            feeds = {"x": Wire(source), "segment_ids": Wire(MARKS)}
            nodes["task_marked"] = node("text.segments", feeds, segments=2, d_model=int(size))
    inputs = frozen({**graph.inputs, MARKS: Input("int64", graph.inputs[TEXT].shape)})
    return replace(graph, inputs=inputs, nodes=frozen(nodes))


def _feeds(one: Node) -> Iterable[Wire]:
    return one.inputs if isinstance(one.inputs, tuple) else one.inputs.values()


def _spelt(label: str) -> str:
    """A label of CoNLL-2005 as PropBank has it now: A0 is ARG0, AM-TMP is ARGM-TMP."""
    kind, role = (label[:2], label[2:]) if label[:2] in ("C-", "R-") else ("", label)
    return f"{kind}ARG{role[1:]}" if role[:1] == "A" and not role.startswith("ARG") else label


def _all_spelt(spans_: Iterable[Span]) -> list[Span]:
    return [(start, stop, _spelt(label)) for start, stop, label in spans_]


def _props(items: Sequence[Item], said: Sequence[Iterable[Span]]) -> Iterator[str]:
    """Lemmas and brackets, sentence by sentence."""
    both = zip(items, said, strict=True)
    for _, group in groupby(both, key=lambda one: (one[0].group, one[0].given.sentence)):
        lemmas: list[str] = []
        columns = []
        for item, found in group:
            words = len(item.given.words)
            lemmas = lemmas or ["-"] * words
            lemmas[item.given.predicate] = item.given.lemma
            opened, closed = [""] * words, [""] * words
            for start, stop, label in found:
                opened[start], closed[stop - 1] = f"({label}", ")"
            columns.append([f"{a}*{b}" for a, b in zip(opened, closed, strict=True)])
        yield from (" ".join(cells) + "\n" for cells in zip(lemmas, *columns, strict=True))
        yield "\n"
