"""The graph of an ONNX model, as a pass sees it: which nodes multiply with a stored matrix or read rows of one."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Product:
    """A MatMul by a stored matrix: `weight[inputs, outputs]`, which is what is stored under `root` or its transpose."""

    node: Any
    root: str
    weight: NDArray[Any]
    turned: bool


class OnnxGraph:
    """An `onnx.ModelProto` whose nodes are changed one by one; `finish` puts what was added in its place."""

    def __init__(self, model: Any) -> None:
        self.graph = model.graph
        self.stored = {tensor.name: tensor for tensor in self.graph.initializer}
        self.before: dict[str, list[Any]] = {}
        self.dropped: set[str] = set()
        self.put_outputs: set[str] = set()

    def products(self) -> Iterator[Product]:
        """The products of floating tensors with stored matrices of two axes."""
        turned = {
            node.output[0]: node.input[0]
            for node in self.graph.node
            if node.op_type == "Transpose"
            and node.input[0] in self.stored
            and len(self.stored[node.input[0]].dims) == 2
        }
        for node in self.graph.node:
            if node.op_type != "MatMul":
                continue
            root = turned.get(node.input[1], node.input[1])
            if root in self.stored and len(self.stored[root].dims) == 2:
                weight = self.array(root)
                yield Product(node, root, weight.T if root != node.input[1] else weight, root != node.input[1])

    def tables(self) -> Iterator[Any]:
        """The nodes that read rows of a stored floating matrix."""
        for node in self.graph.node:
            if node.op_type == "Gather" and not any(a.name == "axis" and a.i for a in node.attribute):
                tensor = self.stored.get(node.input[0])
                if tensor is not None and len(tensor.dims) == 2 and self.array(tensor.name).dtype.kind == "f":
                    yield node

    def array(self, name: str) -> NDArray[Any]:
        from onnx import numpy_helper

        return numpy_helper.to_array(self.stored[name])

    def store(self, name: str, array: NDArray[Any]) -> str:
        """Stores an array, unless something is stored under that name."""
        from onnx import numpy_helper

        if name not in self.stored:
            self.stored[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def put(self, at: Any, op: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:
        """A new node before the node `at`, unless one has been put that gives its outputs; the name of the first."""
        from onnx import helper

        if outputs[0] not in self.put_outputs:
            self.put_outputs.add(outputs[0])
            node = helper.make_node(op, inputs, outputs, f"{at.name}/{outputs[0]}", **attributes)
            self.before.setdefault(at.output[0], []).append(node)
        return outputs[0]

    def drop(self, at: Any) -> None:
        """Takes a node out; what was put before it stays."""
        self.dropped.add(at.output[0])

    def finish(self) -> None:
        """Puts new nodes in their places, and leaves out what nothing reads any more."""
        nodes: list[Any] = []
        for node in self.graph.node:
            nodes += self.before.get(node.output[0], [])
            if node.output[0] not in self.dropped:
                nodes.append(node)
        needed = {output.name for output in self.graph.output}
        kept: list[Any] = []
        for node in reversed(nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(node.input)
        made = [type(node).FromString(node.SerializeToString()) for node in reversed(kept)]
        stored = [tensor for name, tensor in self.stored.items() if name in needed]
        shapes = [value for value in self.graph.value_info if value.name in needed]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(made)
        self.graph.initializer.extend(stored)
        self.graph.value_info.extend(shapes)


def split_gemms(model: Any) -> None:
    """Writes each Gemm with a stored matrix as the MatMul, and perhaps the Add, that it is."""
    from onnx import helper

    graph = OnnxGraph(model)
    for node in model.graph.node:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = given.get("alpha", 1) == 1 and given.get("beta", 1) == 1 and not given.get("transA")
        if node.op_type != "Gemm" or node.input[1] not in graph.stored or not plain:
            continue
        x, weight, *bias = node.input
        if given.get("transB"):
            weight = graph.put(node, "Transpose", [weight], f"{weight}.turned", perm=[1, 0])
        out = node.output[0]
        product = graph.put(node, "MatMul", [x, weight], f"{out}.product" if bias else out)
        if bias:
            graph.put(node, "Add", [product, *bias], out)
        graph.drop(node)
    graph.finish()


def written_once(model: Any, given: str, output: str) -> bool:
    """Whether an output is an input with something written into it, and nothing else reads that input's values: then
    the two may be one piece of memory."""
    readers = [node for node in model.graph.node if given in node.input and node.op_type != "Shape"]
    if len(readers) != 1 or list(readers[0].input).count(given) != 1:
        return False
    at = {"ScatterND": {0: 0}, "ScatterElements": {0: 0}, "GroupQueryAttention": {3: 1, 4: 2}}.get(readers[0].op_type)
    place = at and at.get(list(readers[0].input).index(given))
    return place is not None and readers[0].output[place] == output


def inside(node: Any, paths: Collection[str]) -> bool:
    """Whether an ONNX node was made from a node of the graph at one of the paths, or from a part of it."""
    path = node.name.partition("/")[0]
    return any(path == given or path.startswith(f"{given}.") for given in paths)
