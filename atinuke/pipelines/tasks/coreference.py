"""Coreference: which mentions of a document mean the same (CoNLL-2012, Pradhan et al., 2012; LitBank, Bamman et al.,
2020; GUM, Zeldes, 2017), end to end as Lee et al. (2017): every span of a few words gets a vector and a score as a
mention, the best are kept, and each of them gets a score for every kept span before it.

A document becomes windows that overlap. Links of all windows count, so a cluster goes on as far as windows that share a
mention of it reach.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.graph import Graph, Input, Node, Range, Wire
from atinuke.pipelines.encoding import Pieces, Texts
from atinuke.pipelines.heads import TEXT, mask, vectors, with_head
from atinuke.pipelines.objective import Objective, node
from atinuke.pipelines.objective_coreference import Coreference as Antecedents
from atinuke.pipelines.sampler import IGNORED
from atinuke.pipelines.scores.coreference import coreference as scores
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.task import LABELS, MASK, Array, Item, Positive, Task, Window, in_order
from atinuke.pipelines.tasks.mentions import Document, Mention, coreference

SPANS = "spans"  # the input, and its axis
KEPT, MENTIONS, ANTECEDENTS = "kept", "mentions", "antecedents"
MOST_SPANS = 2**17
Clusters = Sequence[Sequence[Mention]]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Words:
    """The words of a document as tokens: those of word w are `pieces[starts[w]:stops[w]]`, none for a word that the
    tokenizer has no token for. `sentence` numbers the sentence of each."""

    pieces: Pieces
    starts: Ids
    stops: Ids
    sentence: Ids


class Coreference(Task):
    """Files in columns as CoNLL-2012's. CoNLL F1, the mean of the F1 of MUC, B³ and CEAF-φ4; these, LEA, BLANC, and F1
    of mentions.

    Windows begin `stride` tokens apart. A mention has at most `width` words of one sentence; `keep` spans of a window
    are looked at as mentions. Where `singletons` are annotated, as in LitBank and GUM, a span that is likelier a
    mention than none is one though it has no antecedent.
    """

    name: Literal["coreference"]
    length: Positive = 512
    stride: Positive = 256
    width: Positive = 10
    keep: Positive = 128
    singletons: bool = False
    d_span: Positive = 128
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3

    @property
    def answers(self) -> object:
        return "clusters"

    def load(self, file: Path) -> list[Item]:
        items: list[Item] = []
        places: dict[str, int | None] = {}
        for document in coreference(file):
            name = document.name
            if name in places:
                fix = "name its parts `(name); part 000`, `(name); part 001`, as CoNLL-2012 does"
                raise fail(
                    f"has the document `{name}` twice", f"also in line {places[name]}", where=document.where, fix=fix
                )
            places[name] = document.where.line
            genre = name.lstrip("(").partition("/")
            slices = {"genre": genre[0]} if genre[1] else {}
            items.append(Item(name, document.where, document, document.clusters, slices))
        return items

    def gold(self, item: Item) -> Clusters | None:
        """The clusters of an item that a model is trained for."""
        found: Clusters | None = item.gold
        return found

    def words(self, item: Item, texts: Texts) -> Words:
        """The words of an item as tokens."""
        document: Document = item.given
        words = document.words
        sentence = np.repeat(np.arange(len(document.sentences)), [len(one) for one in document.sentences])
        pieces = texts.pieces(" ".join(words))
        owners = np.searchsorted(np.cumsum([len(word) + 1 for word in words]), pieces.offsets[:, 0], side="right")
        numbers = np.arange(len(words))
        starts, stops = np.searchsorted(owners, numbers), np.searchsorted(owners, numbers, side="right")
        return Words(pieces, starts, stops, sentence)

    def encode(self, item: Item, texts: Texts) -> list[Window]:
        words = self.words(item, texts)
        room = self.length - texts.added(pair=False)
        if room < 1:
            raise fail(
                "`length` has no room for a text", f"it is {self.length}", where="task.length", fix="set it higher"
            )
        if self.stride > room:
            told = f"it is {self.stride}, but a window has {room} tokens of the text"
            fix = "set `stride` lower, or `length` higher"
            raise fail("`stride` leaves out tokens", told, where="task.stride", fix=fix)
        begins = range(0, max(1, len(words.pieces) - room + self.stride), self.stride)
        return [self._window(item, texts, words, begin, begin + room) for begin in begins]

    def _window(self, item: Item, texts: Texts, words: Words, begin: int, end: int) -> Window:
        """A window of the tokens from `begin` to `end`; `known` are the spans as words, in the order of `spans`."""
        found = texts.join(words.pieces[begin:end])
        first = int(np.argmax(found.source == 0)) if (found.source == 0).any() else 0
        mentions = self._spans(words, begin, end)
        tokens = np.stack([words.starts[mentions[:, 0]], words.stops[mentions[:, 1] - 1]], 1) - begin + first
        inputs: dict[str, Array] = {"input_ids": found.ids, "segment_ids": found.segments}
        inputs[SPANS] = tokens if len(tokens) else np.zeros((1, 2), np.int64)  # an empty span is none
        gold = self.gold(item)
        if gold is not None:
            cluster = {mention: number for number, one in enumerate(gold, 1) for mention in one}
            right = [
                (*token, cluster[said])
                for token, mention in zip(tokens.tolist(), mentions.tolist(), strict=True)
                if (said := (mention[0], mention[1])) in cluster
            ]
            inputs[LABELS] = np.array(right or [(IGNORED,) * 3], np.int64)
        return Window(inputs, mentions)

    def _spans(self, words: Words, begin: int, end: int) -> Ids:
        """The spans of words that lie in a window, `[spans, 2]`, in the order of the text, the shorter first."""
        shown = (words.starts < words.stops) & (words.starts >= begin) & (words.stops <= end)
        first = np.flatnonzero(shown)[:, None]
        last = np.broadcast_to(first + np.arange(self.width), (len(first), self.width))
        inside = np.minimum(last, len(shown) - 1)
        fits = (last == inside) & shown[inside] & (words.sentence[inside] == words.sentence[first])
        return np.stack([np.broadcast_to(first, last.shape)[fits], last[fits] + 1], 1)

    def head(self, checked: CheckedGraph) -> Graph:
        wire, d_model = vectors(checked)
        spans = Wire(SPANS)
        nodes: dict[str, Node] = {}
        if self.dropout:
            nodes["task_drop"] = node("dropout", {"x": wire}, rate=self.dropout)
            wire = Wire("task_drop")
        best = {"scores": Wire("task_best", "scores"), "spans": Wire("task_best", "spans")}
        nodes |= {
            "task_spans": node("span.vectors", {"x": wire, "spans": spans}, d_model=d_model, d_span=self.d_span),
            "task_mentions": node("head.regression", {"x": Wire("task_spans")}, d_model=self.d_span),
            "task_best": node(
                "span.best",
                {"x": Wire("task_spans"), "scores": Wire("task_mentions"), "spans": spans},
                keep=self.keep,
            ),
            "task_antecedents": node(
                "head.antecedents",
                {"x": Wire("task_best"), **best},
                d_span=self.d_span,
                d_hidden=self.d_span,
                dropout=self.dropout,
            ),
        }
        outputs = {MENTIONS: Wire("task_mentions"), KEPT: best["spans"], ANTECEDENTS: Wire("task_antecedents")}
        given = mask(checked) if MASK in checked.graph.inputs else {}
        shape = (checked.graph.inputs[TEXT].shape[0], SPANS, "2")
        return with_head(
            checked, nodes, outputs, {**given, SPANS: Input("int64", shape)}, {SPANS: Range(1, MOST_SPANS)}
        )

    def objective(self) -> Objective:
        return Antecedents(name="coreference")

    def decode(self, item: Item, windows: Sequence[Window], outputs: Sequence[Mapping[str, Array]]) -> Any:
        return [[list(mention) for mention in one] for one in self.clusters(windows, outputs)]

    def clusters(self, windows: Sequence[Window], outputs: Sequence[Mapping[str, Array]]) -> list[list[Mention]]:
        """The clusters of an item: each mention with the antecedent that has the highest score of all windows, if that
        is above 0, the score of none."""
        best: dict[Mention, tuple[float, Mention]] = {}
        alone: set[Mention] = set()
        for window, output in zip(windows, outputs, strict=True):
            for mention, chance, antecedent, score in _said(window, output):
                if chance > 0:
                    alone.add(mention)
                if antecedent and score > 0 and (mention not in best or score > best[mention][0]):
                    best[mention] = score, antecedent
        links = [(mention, antecedent) for mention, (_, antecedent) in best.items()]
        return joined(links, alone if self.singletons else ())

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        said = [[[(start, stop) for start, stop in cluster] for cluster in one] for one in predictions]
        return scores([(item.gold, one) for item, one in zip(items, said, strict=True)])

    def files(self, items: Sequence[Item], predictions: Sequence[Any]) -> dict[str, str]:
        """The response, as the reference scorer reads it; the key too, where that is known."""
        found = {"response.conll": "".join(_columns(items, predictions))}
        if all(item.gold is not None for item in items):
            found["key.conll"] = "".join(_columns(items, [item.gold for item in items]))
        return found

    def predictions(self, file: Path, items: Sequence[Item]) -> list[Any]:
        """Out of a response in columns, of the same documents and words."""
        found = {item.id: item for item in self.load(file)}
        said = in_order(file, found, items)
        for item, one in zip(items, said, strict=True):
            if len(one.given.words) != len(item.given.words):
                told = f"got {len(one.given.words):,}, where the data has {len(item.given.words):,}"
                raise fail(f"`{item.id}` has other words than the data", told, where=one.where)
        return [[[list(mention) for mention in cluster] for cluster in one.gold] for one in said]


def joined(links: Iterable[tuple[Mention, Mention]], alone: Iterable[Mention] = ()) -> list[list[Mention]]:
    """The clusters that links make, and mentions that may stand alone, in the order of the text."""
    parents: dict[Mention, Mention] = {mention: mention for mention in alone}

    def root(mention: Mention) -> Mention:
        parents.setdefault(mention, mention)
        while parents[mention] != mention:
            parents[mention] = mention = parents[parents[mention]]
        return mention

    for one, other in links:
        parents[root(one)] = root(other)
    found: dict[Mention, list[Mention]] = {}
    for mention in sorted(parents):
        found.setdefault(root(mention), []).append(mention)
    return list(found.values())


def _said(window: Window, output: Mapping[str, Array]) -> Iterator[tuple[Mention, float, Mention | None, float]]:
    """What the model says of each kept span of a window: its words, its score as a mention, the likeliest antecedent,
    and the score of that."""
    known: Ids = window.known
    if not len(known):
        return
    tokens, kept = window.inputs[SPANS], output[KEPT].astype(np.int64)
    kept = kept[kept[:, 0] < kept[:, 1]]
    place = {(start, stop): number for number, (start, stop) in enumerate(tokens.tolist())}
    numbers = [place[start, stop] for start, stop in kept.tolist()]
    mentions = [(start, stop) for start, stop in known[numbers].tolist()]
    pairs = output[ANTECEDENTS]
    for row, mention in enumerate(mentions):
        best = int(pairs[row, :row].argmax()) if row else None
        chance = float(output[MENTIONS][numbers[row]])
        yield (
            mention,
            chance,
            None if best is None else mentions[best],
            0.0 if best is None else float(pairs[row, best]),
        )


def _columns(items: Sequence[Item], said: Sequence[Clusters]) -> Iterator[str]:
    """Documents in five columns: document, part, number of the word in its sentence, word, coreference."""
    for item, clusters in zip(items, said, strict=True):
        opens: dict[int, list[tuple[int, str]]] = {}
        closes: dict[int, list[tuple[int, str]]] = {}
        for number, cluster in enumerate(clusters):
            for start, stop in cluster:
                if start + 1 == stop:
                    opens.setdefault(start, []).append((-1, f"({number})"))
                else:
                    opens.setdefault(start, []).append((-stop, f"({number}"))
                    closes.setdefault(stop - 1, []).append((-start, f"{number})"))
        name, _, part = item.id.partition(";")
        name, part = name.strip("() ").replace(" ", "_"), part.strip().removeprefix("part ") or "0"
        yield f"#begin document {item.id}\n"
        place = 0
        for sentence in item.given.sentences:
            for number, word in enumerate(sentence):
                cell = "|".join(text for side in (closes, opens) for _, text in sorted(side.get(place, ())))
                yield f"{name}\t{part}\t{number}\t{word}\t{cell or '-'}\n"
                place += 1
            yield "\n"
        yield "#end document\n"
