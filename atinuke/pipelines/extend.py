"""A pretrained model with more words: new pieces in its tokenizer, new rows in its embedding and in what is tied to it.

A new row is the mean of the rows of the old pieces that the new one stands for, so that at first the model reads a text
nearly as it did, in fewer tokens (docs/log.md compares ways to begin). All other numbers stay as they are.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atinuke.compile.front import check_graph
from atinuke.compile.module import build
from atinuke.core.checked import CheckedGraph
from atinuke.core.dump import dump
from atinuke.core.errors import fail
from atinuke.core.graph import Graph, frozen
from atinuke.pipelines import checkpoint
from atinuke.pipelines.pieces import Fertility, Learned, extended, fertility, learn
from atinuke.pipelines.pretrained import files
from atinuke.pipelines.pretrained.config import CONFIG
from atinuke.pipelines.pretrained.folder import FAMILY, GRAPH, carry, new_folder, open_folder, require_new
from atinuke.pipelines.tokenizer_files import find_tokenizer, read_tokenizer

VOCABULARY, TOKENIZER = "vocab_size", "tokenizer.json"
SUPERSEDED = ("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "tokenizer.model", "spiece.model")
"""Files that would say something else than the new tokenizer.json."""


@dataclass(frozen=True)
class Extended:
    """What has become of a model: its new pieces; rows of its embedding, and tokens a word, before and after."""

    pieces: tuple[str, ...]
    rows: tuple[int, int]
    fertility: tuple[Fertility, Fertility]


def extend(model: Path, texts: Callable[[], Iterable[str]], count: int, out: Path) -> Extended:
    """Writes a model folder like `model` with `count` new pieces, learned from what `texts()` gives.

    Raises:
        AtinukeError: it is no model folder, or has no tokenizer or vocabulary; or see `pieces.learn`.
    """
    require_new(out)
    folder = open_folder(model)
    content = read_tokenizer(find_tokenizer(model))
    graph = folder.checked.graph
    if VOCABULARY not in graph.dims:
        raise fail(f"has no dim `{VOCABULARY}` to make larger", where=str(model / GRAPH), fix="extend a model of text")
    learned = learn(content, texts(), count)
    new = extended(content, learned)
    vocabulary = json.loads(new)["model"]["vocab"]
    first = vocabulary[next(iter(learned.pieces))]
    before = int(folder.checked.dims[VOCABULARY])
    after = max(before, first + count)
    checked = _sized(graph, after)
    axes = _axes_of_tokens(graph, before)
    rows = rows_of(learned, json.loads(content)["model"])
    tensors = {
        name: _larger(tensor, axes[name], after, first, rows) if name in axes else tensor
        for name, tensor in checkpoint.read_finite(model / files.WEIGHTS).items()
    }
    with new_folder(out) as draft:
        carry(model, draft)
        for name in SUPERSEDED:
            (draft / name).unlink(missing_ok=True)
        for name in (CONFIG, FAMILY):
            (draft / name).write_bytes((model / name).read_bytes())
        (draft / GRAPH).write_text(dump(checked.graph), encoding="utf-8")
        (draft / TOKENIZER).write_text(new, encoding="utf-8")
        files.write(tensors, draft, shard=2**63)
    told = fertility(content, texts()), fertility(new, texts())
    return Extended(tuple(learned.pieces), (before, after), told)


def rows_of(learned: Learned, model: Mapping[str, Any]) -> list[list[int]]:
    """For every new piece the tokens that it stands for; for a letter that was none its bytes', or the unknown one."""
    vocabulary, unknown = model["vocab"], model.get("unk_token")

    def tokens(piece: str) -> list[int]:
        if piece in vocabulary:
            return [vocabulary[piece]]
        spelt = [f"<0x{byte:02X}>" for byte in piece.encode()] if model.get("byte_fallback") else [unknown]
        return [vocabulary[one] for one in spelt if one in vocabulary]

    return [[token for part in parts for token in tokens(part)] for parts in learned.pieces.values()]


def _sized(graph: Graph, size: int) -> CheckedGraph:
    return check_graph(replace(graph, dims=frozen({**graph.dims, VOCABULARY: size})))


def _axes_of_tokens(graph: Graph, size: int) -> dict[str, int]:
    """The tensors with an axis of tokens, and which it is: the one that grows with the vocabulary."""
    shapes = [
        {name: tensor.shape for name, tensor in checkpoint.weights(build(_sized(graph, one), device="meta")).items()}
        for one in (size, size + 1)
    ]
    return {
        name: next(axis for axis, (a, b) in enumerate(zip(shape, shapes[1][name], strict=True)) if a != b)
        for name, shape in shapes[0].items()
        if shape != shapes[1][name]
    }


def _larger(tensor: Tensor, axis: int, size: int, first: int, rows: Sequence[Sequence[int]]) -> Tensor:
    """A tensor with `size` tokens on an axis: the old ones, and from `first` on means of them."""
    old = tensor.movedim(axis, 0)
    new = old.new_zeros((size, *old.shape[1:]))
    new[: len(old)] = old
    precise = old.to(torch.promote_types(old.dtype, torch.float32))
    for number, these in enumerate(rows):
        new[first + number] = (precise[list(these)] if these else precise).mean(0).to(old.dtype)
    return new.movedim(0, axis)
