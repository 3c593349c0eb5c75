"""Attention of one new token to its cache as ONNX Runtime's own operator, GroupQueryAttention.

Written out, a step reads the whole cache however little of it is filled, and takes some twenty operators a layer. The
operator reads as far as the row's position, and writes the new key and value where they belong: in place, if the cache
that goes in and the one that comes out are one piece of memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atinuke.compile.onnx_graph import OnnxGraph

DOMAIN = "com.microsoft"
POSITION = "position"
LANES = 8
"""The operator wants heads whose size is a multiple of this."""


@dataclass(frozen=True)
class _Attention:
    """What was found: the last node, `query`, `key` and `value` `[batch, 1, heads, head_dim]`, the nodes that write the
    caches, and the scale of the scores."""

    last: Any
    query: str
    key: str
    value: str
    keys: Any
    values: Any
    scale: float


def attend_in_place(model: Any) -> int:
    """Changes an `onnx.ModelProto` that decodes one token a row; the number of attentions that were changed.

    Changed is what sees all of the past and nothing else (no window, no slopes), with caches in float32 that are inputs
    `[batch, kv_heads, capacity, head_dim]` of the model. What is behind a row's position in a cache that comes out is
    undefined, unless the caches are written in place.
    """
    from onnx import TensorProto, helper

    graph = OnnxGraph(model)
    finder = _Finder(graph, {given.name: given for given in model.graph.input})
    found = [one for node in model.graph.node if node.op_type == "Softmax" and (one := finder.at(node))]
    if not found:
        return 0
    for one in found:
        at, name = one.last, one.last.output[0]
        inputs = finder.packed(one) or [
            graph.put(at, "Reshape", [part, graph.store("joined", np.array([0, 0, -1]))], f"{name}.{word}")
            for word, part in (("query", one.query), ("key", one.key), ("value", one.value))
        ]
        behind = graph.put(found[0].last, "Cast", [POSITION], f"{POSITION}.int32", to=TensorProto.INT32)
        most = graph.put(found[0].last, "ReduceMax", [behind], f"{POSITION}.most", keepdims=0)
        total = graph.put(
            found[0].last, "Add", [most, graph.store("one.int32", np.array(1, np.int32))], f"{POSITION}.total"
        )
        graph.put(
            at,
            "GroupQueryAttention",
            [*inputs, one.keys.input[0], one.values.input[0], behind, total],
            *(name, one.keys.output[0], one.values.output[0]),
            domain=DOMAIN,
            num_heads=finder.size(one.query, 2),
            kv_num_heads=finder.size(one.key, 2),
            scale=one.scale,
        )
        for node in (at, one.keys, one.values):
            graph.drop(node)
    graph.finish()
    if all(opset.domain != DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return len(found)


class _Finder:
    """Looks for an attention around a softmax, as the exporter writes one query a row."""

    def __init__(self, graph: OnnxGraph, inputs: dict[str, Any]) -> None:
        self.graph = graph
        self.inputs = inputs
        self.source = {name: node for node in graph.graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.graph.value_info}

    def at(self, softmax: Any) -> _Attention | None:
        added = self.one(softmax.input[0], "Add")
        scaled = added and self.one(added.input[0], "Mul")
        scores = scaled and self.one(scaled.input[0], "MatMul")
        mixed = self.next(softmax.output[0], "MatMul")
        parted = mixed and self.next(mixed.output[0], "Reshape")
        turned = parted and self.next(parted.output[0], "Transpose")
        last = turned and self.next(turned.output[0], "Reshape")
        if not (added and scaled and scores and mixed and last) or self.number(scaled.input[1]) is None:
            return None
        keys = self.cache(self.back(scores.input[1], "Transpose", "Reshape"))
        values = self.cache(self.back(mixed.input[1], "Reshape"))
        query = self.heads(self.back(scores.input[0], "Reshape"))
        key, value = (self.heads(self.back(node.input[2], "Expand")) if node else None for node in (keys, values))
        if not (keys and values and query and key and value) or (self.size(query, 3) or 1) % LANES:
            return None
        place = self.causal(added.input[1])
        if place is None or {self.written(keys), self.written(values)} != {place} or not self.is_position(place):
            return None
        scale = self.number(scaled.input[1])
        assert scale is not None
        return _Attention(last, query, key, value, keys, values, scale)

    def packed(self, found: _Attention) -> list[str] | None:
        """What query, key and value are parts of, where they are that in this order and nothing is done to them."""
        split = self.one(found.query, "Split")
        if split is None or list(split.output) != [found.query, found.key, found.value]:
            return None
        view = self.one(split.input[0], "Reshape")
        return [view.input[0], "", ""] if view is not None else None

    def one(self, name: str, kind: str) -> Any:
        """The node that gives a value, if it is of a kind."""
        node = self.source.get(name)
        return node if node is not None and node.op_type == kind else None

    def next(self, name: str, kind: str) -> Any:
        """The only node that reads a value, if it is of a kind."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None

    def back(self, name: str, *kinds: str) -> str:
        """The value before nodes of these kinds, each at most once."""
        for kind in kinds:
            node = self.one(name, kind)
            name = node.input[0] if node else name
        return name

    def cache(self, name: str) -> Any:
        """The node that writes into a cache, which is an input in float32."""
        node = self.one(name, "ScatterND")
        given = self.inputs.get(node.input[0]) if node else None
        return node if given is not None and given.type.tensor_type.elem_type == 1 else None

    def heads(self, name: str) -> str | None:
        """The value `[batch, 1, heads, head_dim]` whose heads a node brings to the front."""
        node = self.one(name, "Transpose")
        if node is None or list(node.attribute[0].ints) != [0, 2, 1, 3] or self.size(node.input[0], 2) is None:
            return None
        return str(node.input[0])

    def size(self, name: str, axis: int) -> int | None:
        dims: Sequence[Any] = self.shapes.get(name, ())
        return dims[axis].dim_value or None if axis < len(dims) else None

    def number(self, name: str) -> float | None:
        if name not in self.graph.stored:
            return None
        array = self.graph.array(name)
        return float(array.reshape(())) if array.size == 1 else None

    def causal(self, name: str) -> str | None:
        """The positions of the queries, if this is 0 where a key is not behind them and minus infinity elsewhere."""
        chosen = self.one(self.back(name, "Reshape", "Expand"), "Where")
        if chosen is None or [self.number(value) for value in chosen.input[1:]] != [0.0, float("-inf")]:
            return None
        visible = self.one(chosen.input[0], "GreaterOrEqual")
        distance = visible and self.one(visible.input[0], "Sub")
        keys = distance and self.one(distance.input[1], "Range")
        if not keys or [self.number(v) for v in (visible.input[1], keys.input[0], keys.input[2])] != [0, 0, 1]:
            return None
        return self.back(distance.input[0], "Unsqueeze")

    def written(self, scatter: Any) -> str | None:
        """The positions that a cache is written at."""
        parts = self.one(scatter.input[1], "Concat")
        return (
            self.back(parts.input[2], "Unsqueeze", "Expand", "Unsqueeze") if parts and len(parts.input) == 3 else None
        )

    def is_position(self, name: str) -> bool:
        """Whether this is `position[:, None]`, to which the exporter adds the places of a single new token."""
        added = self.one(name, "Add")
        return (
            added is not None
            and self.number(added.input[1]) == 0
            and self.back(added.input[0], "Unsqueeze") == POSITION
        )
