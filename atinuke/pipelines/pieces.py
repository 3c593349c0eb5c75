"""New pieces for a tokenizer that is there already: merges of its own pieces, as texts of another language need them.

A tokenizer that was trained on one language cuts the words of another into many pieces. Here the pieces that stand next
to each other most often become one, again and again (Sennrich et al., 2016), beginning with the pieces that the
tokenizer gives today. So every new piece is made of old ones, and what was one piece stays one.
"""

import heapq
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import tokenizers

from atinuke.core.errors import fail
from atinuke.runtime.tokenizer import require_characters

LEAST = 2
"""A pair must occur so often to become a piece."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Learned:
    """New pieces in the order in which they were learned, each with the old pieces it stands for (and letters that the
    tokenizer did not know), and the merges that lead to them."""

    pieces: Mapping[str, tuple[str, ...]]
    merges: tuple[Pair, ...]


def learn(content: str, texts: Iterable[str], count: int) -> Learned:
    """So many new pieces for the tokenizer of a `tokenizer.json`.

    Raises:
        AtinukeError: it is neither BPE nor WordPiece, or the texts do not support as many.
    """
    kind = _Kind(content)
    words = _words(kind.tokenizer, texts)
    alphabet: Counter[str] = Counter()
    for word, times in words.items():
        for piece in kind.split(word):
            if piece not in kind.vocabulary:
                alphabet[piece] += times
    letters = [piece for piece, times in alphabet.most_common() if times >= LEAST][:count]
    known = {*kind.vocabulary, *letters}
    split = {word: found for word in words if known.issuperset(found := kind.split(word))}
    pieces: dict[str, tuple[str, ...]] = {letter: (letter,) for letter in letters}
    merges: list[Pair] = []
    for pair in _merges([(split[word], times) for word, times in words.items() if word in split], kind.join):
        if len(pieces) == count:
            break
        merges.append(pair)
        new = kind.join(*pair)
        if new not in kind.vocabulary:
            pieces.setdefault(new, tuple(old for piece in pair for old in pieces.get(piece, (piece,))))
    if len(pieces) < count:
        raise fail(
            f"these texts support {len(pieces):,} new pieces only",
            f"{count:,} were asked for; each must occur at least {LEAST} times",
            fix="ask for fewer, or give more text",
        )
    return Learned(pieces, tuple(merges))


def extended(content: str, learned: Learned) -> str:
    """The `tokenizer.json` with new pieces behind all its tokens."""
    config = json.loads(content)
    model = config["model"]
    after = 1 + max([*model["vocab"].values(), *(token["id"] for token in config.get("added_tokens") or ())])
    model["vocab"] |= {piece: after + number for number, piece in enumerate(learned.pieces)}
    if model["type"] == "BPE":
        as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
        model["merges"] += [" ".join(pair) if as_text else list(pair) for pair in learned.merges]
    return json.dumps(config, ensure_ascii=False, indent=2)


@dataclass(frozen=True)
class Fertility:
    """Tokens for a word, which is what stands between white space (Rust et al., 2021), and how many of them are the
    unknown one: whatever the tokenizer cannot spell takes only one."""

    tokens: float
    unknown: float


def fertility(content: str, texts: Iterable[str]) -> Fertility:
    """How a tokenizer cuts texts."""
    tokenizer = tokenizers.Tokenizer.from_str(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    unknown = json.loads(content)["model"].get("unk_token")
    tokens = unknowns = words = 0
    for text in texts:
        found = tokenizer.encode(text, add_special_tokens=False).tokens
        tokens += len(found)
        unknowns += found.count(unknown)
        words += len(text.split())
    return Fertility(tokens / max(words, 1), unknowns / max(words, 1))


class _Kind:
    """How a tokenizer of its kind splits a word and joins two pieces."""

    def __init__(self, content: str) -> None:
        self.tokenizer = tokenizers.Tokenizer.from_str(content)
        model: dict[str, Any] = json.loads(content)["model"]
        if model["type"] not in ("BPE", "WordPiece"):
            what = f"a tokenizer of the kind {model['type']} cannot be given more pieces"
            raise fail(what, "BPE and WordPiece can", fix="train a tokenizer, and an embedding with it")
        self.vocabulary: dict[str, int] = model["vocab"]
        self.prefix: str = model.get("continuing_subword_prefix") or ""
        self.split: Callable[[str], tuple[str, ...]] = self._greedy if model["type"] == "WordPiece" else self._merged

    def join(self, left: str, right: str) -> str:
        return left + right.removeprefix(self.prefix)

    def _greedy(self, word: str) -> tuple[str, ...]:
        """The longest piece, then the longest of the rest; a letter that begins no piece stands alone."""
        found: list[str] = []
        start = 0
        while start < len(word):
            prefix = self.prefix if start else ""
            stops = range(len(word), start, -1)
            stop = next((stop for stop in stops if prefix + word[start:stop] in self.vocabulary), start + 1)
            found.append(prefix + word[start:stop])
            start = stop
        return tuple(found)

    def _merged(self, word: str) -> tuple[str, ...]:
        """What the merges leave; a letter that is no piece stands alone."""
        found: list[str] = []
        for stretch in re.split(r"(.)", word, flags=re.S) if self._unknown(word) else [word]:
            if stretch and self._unknown(stretch):
                found.append(stretch)
            elif stretch:
                found += [token.value for token in self.tokenizer.model.tokenize(stretch)]
        return tuple(found)

    def _unknown(self, word: str) -> bool:
        return not self.vocabulary.keys() >= set(word)


def _words(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs, as the tokenizer sees words."""
    found: Counter[str] = Counter()
    for text in texts:
        require_characters(text)
        plain = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        parts = tokenizer.pre_tokenizer.pre_tokenize_str(plain) if tokenizer.pre_tokenizer else [(plain, None)]
        # SentencePiece's way of writing a blank begins a word, also where nothing has been parted
        found.update(word for part, _ in parts for word in re.findall(r"▁*[^▁]+|▁+", part))
    return found


def _merges(words: list[tuple[tuple[str, ...], int]], join: Callable[[str, str], str]) -> Iterable[Pair]:
    """The most frequent pair of neighbours, joined, and so on; of pairs that are equally frequent the first by name."""
    split = [list(pieces) for pieces, _ in words]
    counts: Counter[Pair] = Counter()
    where: dict[Pair, set[int]] = {}
    for number, (first, times) in enumerate(words):
        for pair in pairwise(first):
            counts[pair] += times
            where.setdefault(pair, set()).add(number)
    waiting = [(-times, pair) for pair, times in counts.items()]
    heapq.heapify(waiting)
    while waiting:
        times, pair = heapq.heappop(waiting)
        if -times != counts[pair] or -times < LEAST:
            continue
        yield pair
        changed: set[Pair] = set()
        for number in where.pop(pair):
            pieces, weight = split[number], words[number][1]
            joined = _joined(pieces, pair, join)
            for sign, these in ((-weight, pieces), (weight, joined)):
                for one in pairwise(these):
                    counts[one] += sign
                    changed.add(one)
                    if sign > 0:
                        where.setdefault(one, set()).add(number)
            split[number] = joined
        for one in changed:
            if counts[one] >= LEAST:
                heapq.heappush(waiting, (-counts[one], one))


def _joined(pieces: list[str], pair: Pair, join: Callable[[str, str], str]) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(pieces):
        if tuple(pieces[at : at + 2]) == pair:
            found.append(join(*pair))
            at += 2
        else:
            found.append(pieces[at])
            at += 1
    return found
