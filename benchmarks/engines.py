"""The engines of others on the models of others: each way takes one call's inputs, with one thread.

Where an engine is not installed, its function raises ImportError; `pip install ctranslate2 nncf openvino onnxruntime`
brings all of them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]
Feeds = dict[str, Array]
Call = Callable[[Feeds], Array]


def eager(model: nn.Module, dtype: torch.dtype = torch.float32) -> Call:
    """The module as it is; its first output."""
    model = model.to(dtype)

    @torch.inference_mode()
    def call(feeds: Feeds) -> Array:
        found = model(*(_tensor(value, dtype) for value in feeds.values()))
        return found.float().numpy()  # type: ignore[no-any-return]

    return call


def frozen(model: nn.Module, dtype: torch.dtype) -> Call:
    """torch.compile with constants folded and weights packed, and its choice among kernels timed."""
    import torch._inductor.config as config

    compiled = torch.compile(model.to(dtype), fullgraph=True, dynamic=False)

    def call(feeds: Feeds) -> Array:
        with torch.no_grad(), config.patch(freezing=True, max_autotune=True):
            found = compiled(*(_tensor(value, dtype) for value in feeds.values()))
        return found.float().numpy()  # type: ignore[no-any-return]

    return call


def _tensor(value: Array, dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(value)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def onnx(model: nn.Module, feeds: Feeds, free: dict[int, str], file: Path) -> Path:
    """An ONNX file of a module whose inputs have the axes `free`."""
    tensors = tuple(torch.from_numpy(value) for value in feeds.values())
    dims = {axis: torch.export.Dim(name, min=1, max=512) for axis, name in free.items()}
    with torch.no_grad():
        program = torch.onnx.export(
            model,
            tensors,
            dynamo=True,
            opset_version=20,
            input_names=list(feeds),
            output_names=["output"],
            dynamic_shapes=[dims] * len(tensors) if dims else None,
            verbose=False,
        )
    assert program is not None
    program.save(file)
    return file


def onnxruntime_session(file: Path, **config: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for name, value in config.items():
        options.add_session_config_entry(name.replace("__", "."), value)
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def onnxruntime(file: Path) -> Call:
    session = onnxruntime_session(file)
    return lambda feeds: session.run(["output"], feeds)[0]  # type: ignore[no-any-return]


def fused(file: Path, heads: int, d_model: int) -> Path:
    """The file after ONNX Runtime's own optimiser for transformers."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    found = optimizer.optimize_model(str(file), "bert", heads, d_model, optimization_options=options)
    place = file.with_suffix(".fused.onnx")
    found.save_model_to_file(str(place))
    return place


def dynamic_int8(file: Path) -> Path:
    """The file with every matrix of weights in 8 bits, one scale a column, and activations quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    place = file.with_suffix(".int8.onnx")
    quantize_dynamic(file, place, per_channel=True, weight_type=QuantType.QInt8)
    return place


def openvino(file: Path, precision: str, weights: str | None = None) -> Call:
    """OpenVINO with arithmetic in `f32` or `bf16`; with `weights` in `int8`, activations are quantised as they come."""
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    if weights:
        import nncf

        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 64 if weights else 0,
        },
    )
    request = compiled.create_infer_request()
    return lambda feeds: request.infer(feeds)[0]  # type: ignore[no-any-return]


class _Words:
    """A vocabulary without words, for converters that want to know them."""

    bos_token, eos_token, unk_token = "0", "1", "2"

    def __init__(self, size: int) -> None:
        self.size = size

    def get_vocab(self) -> dict[str, int]:
        return {str(number): number for number in range(self.size)}


def ctranslate2_folder(model: Any, folder: Path) -> Path:
    """The model of transformers, converted; quantisation happens when it is opened."""
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):  # type: ignore[misc]
        def load_model(self, *_: Any, **__: Any) -> Any:
            return model

        def load_tokenizer(self, *_: Any, **__: Any) -> Any:
            return _Words(model.config.vocab_size)

    model.config.save_pretrained(folder / "config")
    Converter(str(folder / "config")).convert(str(folder / "converted"))
    return folder / "converted"


def ctranslate2_encoder(folder: Path, precision: str) -> Call:
    import ctranslate2

    encoder = ctranslate2.Encoder(str(folder), compute_type=precision, intra_threads=1, inter_threads=1)

    def call(feeds: Feeds) -> Array:
        lengths = feeds["attention_mask"].sum(1)
        found = encoder.forward_batch([row[:n].tolist() for row, n in zip(feeds["input_ids"], lengths, strict=True)])
        return np.array(found.last_hidden_state)

    return call


Tokens = Sequence[int]
Write = Callable[[Tokens, int, Tokens | None], list[int]]
"""Writes so many greedy tokens after a prompt; or what it would have written, had it written other tokens each time."""


def ctranslate2_generator(folder: Path, precision: str) -> Write:
    import ctranslate2

    generator = ctranslate2.Generator(str(folder), compute_type=precision, intra_threads=1, inter_threads=1)

    def call(prompt: Tokens, new: int, forced: Tokens | None) -> list[int]:
        if forced:
            scores = np.array(generator.forward_batch([[*prompt, *forced]]))[0]
            return list(scores[len(prompt) - 1 : -1].argmax(-1))
        found = generator.generate_batch(
            [[str(token) for token in prompt]],
            max_length=new,
            min_length=new,
            sampling_topk=1,
            include_prompt_in_result=False,
            return_end_token=True,
        )
        return list(found[0].sequences_ids[0])

    return call


class Step(nn.Module):
    """A decoder of transformers over a flat row: tokens, then keys and values of the layers, if any; the scores after
    the last token, then keys and values."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *row: Tensor) -> tuple[Tensor, ...]:
        from transformers import DynamicCache

        input_ids, *past = row
        cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True))) if past else DynamicCache()
        found = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        caches = [tensor for layer in found.past_key_values.layers for tensor in (layer.keys, layer.values)]
        return (found.logits, *caches)


def onnx_steps(model: Any, folder: Path) -> tuple[Path, Path]:
    """Two ONNX files of a decoder with one row: what reads a prompt, and what goes on from it."""
    layers, heads = model.config.n_layer, model.config.n_head
    caches = [f"{way}.{layer}.{kind}" for way in ("past", "present") for layer in range(layers) for kind in "kv"]
    past, present = caches[: 2 * layers], caches[2 * layers :]
    old = tuple(torch.randn(1, heads, 5, model.config.n_embd // heads) for _ in past)
    free, grown = torch.export.Dim("sequence", min=2, max=512), torch.export.Dim("past", min=1, max=512)
    files = []
    for name, inputs, shapes in (
        ("prefill", (torch.ones(1, 7, dtype=torch.int64),), ({1: free},)),
        ("decode", (torch.ones(1, 1, dtype=torch.int64), *old), ({}, *({2: grown} for _ in past))),
    ):
        with torch.no_grad():
            program = torch.onnx.export(
                Step(model),
                inputs,
                dynamo=True,
                opset_version=20,
                input_names=["input_ids", *past][: len(inputs)],
                output_names=["logits", *present],
                dynamic_shapes=(shapes,),
                verbose=False,
            )
        assert program is not None
        program.save(folder / f"{name}.onnx")
        files.append(folder / f"{name}.onnx")
    return files[0], files[1]


def onnxruntime_generator(prefill: Path, decode: Path) -> Write:
    """Caches stay with the engine from call to call."""
    import onnxruntime

    sessions = [onnxruntime_session(file) for file in (prefill, decode)]
    outputs = [output.name for output in sessions[0].get_outputs()]
    past = [given.name for given in sessions[1].get_inputs()][1:]

    def call(prompt: Tokens, new: int, forced: Tokens | None) -> list[int]:
        tokens, fed, caches = list[int](), list(prompt), {}
        while len(tokens) < new:
            ids = onnxruntime.OrtValue.ortvalue_from_numpy(np.array([fed]))
            found = sessions[bool(tokens)].run_with_ort_values(outputs, {"input_ids": ids, **caches})
            tokens.append(int(found[0].numpy()[0, -1].argmax()))
            fed = [(forced or tokens)[len(tokens) - 1]]
            caches = dict(zip(past, found[1:], strict=True))
        return tokens

    return call


def openvino_generator(prefill: Path, decode: Path, precision: str, weights: bool) -> Write:
    """The decoding program keeps its caches as variables of the engine, as optimum-intel makes it."""
    import openvino
    from openvino._offline_transformations import apply_make_stateful_transformation

    core = openvino.Core()
    opened = [core.read_model(file) for file in (prefill, decode)]
    names = [given.any_name for given in opened[1].inputs][1:]
    pairs = {old: old.replace("past", "present") for old in names}
    if weights:
        import nncf

        opened[1] = nncf.compress_weights(opened[1], mode=nncf.CompressWeightsMode.INT8_SYM)
    apply_make_stateful_transformation(opened[1], pairs)
    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    hints |= {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 64 if weights else 0, "KV_CACHE_PRECISION": "f32"}
    first, then = (core.compile_model(model, "CPU", hints).create_infer_request() for model in opened)

    def call(prompt: Tokens, new: int, forced: Tokens | None) -> list[int]:
        found = first.infer({"input_ids": np.array([prompt])})
        for state in then.query_state():
            state.state = openvino.Tensor(found[_present(state.name, pairs)])
        tokens = [int(found["logits"][0, -1].argmax())]
        while len(tokens) < new:
            fed = np.array([[(forced or tokens)[len(tokens) - 1]]])
            tokens.append(int(then.infer({"input_ids": fed})[0][0, -1].argmax()))
        return tokens

    return call


def _present(state: str, pairs: dict[str, str]) -> str:
    """The output whose value a variable holds: its name is made of those of input and output."""
    return next(new for old, new in pairs.items() if state.startswith(old) and state.endswith(new))
