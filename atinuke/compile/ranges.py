"""The ranges of activations, seen over some inputs: what int8 and fp8 with fixed scales are calibrated with."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atinuke.compile.onnx_graph import OnnxGraph
from atinuke.core.errors import fail


def ranges(model: Any, batches: Collection[Mapping[str, NDArray[Any]]]) -> dict[str, float]:
    """The largest magnitude of each activation that an `onnx.ModelProto` multiplies with a stored matrix, by name.

    ONNX Runtime runs the model.

    Raises:
        AtinukeError: an activation is not finite for these inputs.
    """
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    names = list(dict.fromkeys(product.node.input[0] for product in OnnxGraph(seen).products()))
    del seen.graph.output[:]
    for i, name in enumerate(names):
        wide, size, largest = (f"{word}.{i}" for word in ("wide", "size", "largest"))
        seen.graph.node.append(helper.make_node("Cast", [name], [wide], to=TensorProto.FLOAT))
        seen.graph.node.append(helper.make_node("Abs", [wide], [size]))
        seen.graph.node.append(helper.make_node("ReduceMax", [size], [largest], keepdims=0))
        seen.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(seen.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = np.max([session.run(None, dict(batch)) for batch in batches], axis=0)
    if not np.isfinite(found).all():
        raise fail("an activation is not finite while calibrating", str(names[int(np.argmin(np.isfinite(found)))]))
    return {name: float(value) for name, value in zip(names, found, strict=True)}
