"""Every built-in: registered, buildable without memory, and true to its contract's small print."""

import subprocess
import sys

import hypothesis
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from atinuke.core.component import import_target
from atinuke.core.registry import Registry
from atinuke.core.signature import read_signature

SETTINGS = {
    "text.embedding": {"vocab_size": 16, "d_model": 8},
    "position.sinusoidal": {"d_model": 8},
    "position.layerwise": {"d_model": 8, "layer": 1, "layers": 3, "gain": True},
    "position.learned": {"d_model": 8, "length": 12},
    "position.rotary": {"head_dim": 4},
    "position.alibi": {"heads": 3},
    "attention.self": {"d_model": 8, "heads": 4, "kv_heads": 2},
    "attention.wide": {"d_model": 8, "heads": 4, "kv_heads": 2, "head_dim": 6},
    "attention.prefix": {"d_model": 8, "heads": 4, "kv_heads": 2},
    "feedforward.gelu": {"d_model": 8, "d_ff": 12},
    "feedforward.relu": {"d_model": 8, "d_ff": 12},
    "feedforward.swiglu": {"d_model": 8, "d_ff": 12},
    "feedforward.experts": {"d_model": 8, "d_ff": 12, "experts": 3},
    "norm.layer": {"d_model": 8},
    "norm.rms": {"d_model": 8},
    "add": {},
    "concat": {},
    "dropout": {"rate": 0.1},
    "identity": {},
    "mean": {},
    "head.vocabulary": {"d_model": 8, "vocab_size": 16},
    "head.vocabulary_loss": {"d_model": 8, "vocab_size": 16},
    "audio.logmel": {"mels": 8},
    "audio.fbank": {"mels": 8},
    "audio.normalise": {},
    "audio.specaugment": {},
    "audio.frames": {"mels": 8, "d_model": 8},
    "audio.patches": {"mels": 20, "d_model": 8},
    "audio.waveform": {"d_model": 8, "channels": 4},
    "vision.normalise": {"channels": 2, "mean": [0.5, 0.25], "std": 0.5},
    "vision.resize": {"height": 6, "width": 3},
    "vision.augment": {"flip": 1.0, "shift": 2, "erase": 1.0},
    "vision.patches": {"d_model": 8, "patch": 2, "channels": 2},
    "vision.stem": {"d_model": 8, "filters": 4, "channels": 2},
    "flatten.grid": {},
    "position.grid_sinusoidal": {"d_model": 8},
    "position.grid_learned": {"d_model": 8, "rows": 3, "columns": 5},
    "position.ids": {"d_model": 8, "length": 16},
    "token.class": {"d_model": 8},
    "text.segments": {"d_model": 8, "segments": 16},
    "text.bytes": {"d_model": 8, "patch": 2},
    "attention.cross": {"d_model": 8, "memory_dim": 6, "heads": 2},
    "fusion.tag": {"d_model": 8},
    "fusion.presence": {},
    "fusion.concat": {},
    "fusion.gate": {"d_model": 8},
    "fusion.late": {},
    "fusion.resampler": {"d_model": 8, "memory_dim": 8, "latents": 3, "heads": 2},
    "fusion.dropout": {"rate": 0.2},
    "dense": {"d_model": 8, "d_out": 5, "activation": "tanh"},
    "position.counted": {"padding": 1},
    "pool.mean": {},
    "pool.first": {},
    "pool.attention": {"d_model": 8, "heads": 2},
    "head.classification": {"d_model": 8, "classes": 5},
    "head.regression": {"d_model": 8},
    "head.projection": {"d_model": 8, "projection_dim": 5},
    "loss.cross_entropy": {"classes": 8, "smoothing": 0.1},
    "loss.regression": {},
    "loss.contrastive": {},
    "loss.sigmoid_contrastive": {},
    "loss.supervised_contrastive": {},
    "loss.ctc": {"classes": 8, "blank": 7},
    "metric.accuracy": {"classes": 8},
    "adapter.bottleneck": {"d_model": 8, "size": 3},
    "affine": {"scale": 2.0, "shift": -1.0},
    "attention.relative": {"d_model": 8, "heads": 2, "head_dim": 3},
    "audio.pad": {"length": 12},
    "feedforward.geglu": {"d_model": 8, "d_ff": 12},
    "head.similarity": {},
    "loss.span": {},
    "span.vectors": {"d_model": 8, "d_span": 6},
    "span.best": {"keep": 8},
    "head.antecedents": {"d_span": 8},
    "loss.mentions": {},
    "loss.antecedents": {},
    "pool.last": {},
    "pool.token": {"token": 3},
    "position.relative": {"heads": 2},
}
COMPONENTS = {name: Registry().component(name) for name in SETTINGS}
WRONG = [
    ("text.embedding", {"vocab_size": 0, "d_model": 8}, "vocab_size must be above 0, but is 0"),
    ("position.layerwise", {"d_model": 8, "layer": 3, "layers": 3}, "layer must be 0 to layers-1 = 2, but is 3"),
    ("position.layerwise", {"d_model": 8, "layer": 0, "layers": 3, "growth": 0.0}, "growth must be above 0"),
    ("position.rotary", {"head_dim": 5}, "head_dim 5 is odd"),
    ("position.rotary", {"head_dim": 4, "slow": 2.0, "fast": 2.0}, "fast 2.0 must be greater than slow 2.0"),
    ("position.learned", {"d_model": 4, "length": 4, "offset": -1}, "offset must be at least 0, but is -1"),
    ("position.counted", {"padding": -1}, "padding must be at least 0, but is -1"),
    ("attention.self", {"d_model": 512, "heads": 7}, "d_model 512 is not a multiple of heads 7"),
    ("attention.self", {"d_model": 8, "heads": 0}, "heads must be above 0"),
    ("attention.self", {"d_model": 8, "heads": 4, "kv_heads": 3}, "heads 4 is not a multiple of kv_heads 3"),
    ("attention.self", {"d_model": 8, "heads": 4, "window": 0}, "window must be above 0"),
    ("attention.self", {"d_model": 8, "heads": 4, "dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ("feedforward.experts", {"d_model": 8, "d_ff": 8, "experts": 2, "top_k": 3}, "top_k 3 is more than experts 2"),
    ("attention.cross", {"d_model": 8, "memory_dim": 6, "heads": 3}, "d_model 8 is not a multiple of heads 3"),
    ("attention.cross", {"d_model": 8, "memory_dim": 0, "heads": 2}, "memory_dim must be above 0"),
    ("fusion.resampler", {"d_model": 8, "memory_dim": 6, "latents": 0, "heads": 2}, "latents must be above 0"),
    ("fusion.dropout", {"rate": -0.1}, "rate must be from 0 to 1, but is -0.1"),
    ("loss.cross_entropy", {"classes": 4, "smoothing": 1.0}, "smoothing must be at least 0 and below 1, but is 1.0"),
    ("loss.contrastive", {"temperature": 0.0}, "temperature must be above 0"),
    ("loss.supervised_contrastive", {"temperature": 0.0}, "temperature must be above 0"),
    ("loss.ctc", {"classes": 4, "blank": 4}, "blank must be 0 to classes-1 = 3, but is 4"),
    ("dropout", {"rate": 1.5}, "rate must be at least 0 and below 1, but is 1.5"),
    ("audio.logmel", {"rate": 100}, "rate must be at least 200 Hz, but is 100"),
    ("audio.fbank", {"mels": 0}, "mels must be above 0, but is 0"),
    ("audio.normalise", {"eps": 0.0}, "eps must be above 0"),
    ("audio.frames", {"mels": 8, "d_model": 8, "stride": 4}, "stride must be 1 to 3"),
    ("audio.patches", {"mels": 8, "d_model": 8}, "mels 8 are fewer than a patch of 16 has"),
    ("audio.patches", {"mels": 8, "d_model": 8, "patch": 4, "stride": 5}, "stride 5 is above patch 4"),
    ("audio.waveform", {"d_model": 8, "channels": 0}, "channels must be above 0"),
    ("vision.normalise", {"channels": 2, "mean": [0.5, 0.5, 0.5]}, "mean has 3 numbers for 2 channels"),
    ("vision.normalise", {"channels": 2, "std": [0.5, 0.0]}, "std must be above 0, but is 0.0"),
    ("vision.resize", {"height": 0, "width": 3}, "height must be above 0, but is 0"),
    ("vision.augment", {"flip": 1.5}, "flip must be from 0 to 1, but is 1.5"),
    ("vision.augment", {"shift": -1}, "shift must be at least 0, but is -1"),
    ("position.grid_sinusoidal", {"d_model": 6}, "d_model 6 is not a multiple of 4"),
    ("text.bytes", {"d_model": 8, "specials": -1}, "specials must be at least 0, but is -1"),
]


def build(name: str) -> nn.Module:
    return COMPONENTS[name].load()(**SETTINGS[name])


def test_these_are_all():
    assert set(Registry().components()) == set(SETTINGS)


def test_listing_imports_no_torch():
    code = (
        "import sys; from atinuke.core.registry import Registry; Registry().components(); print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("name", SETTINGS)
def test_builds_on_meta_and_stores_its_settings(name):
    with torch.device("meta"):
        module = build(name)
    assert all(tensor.is_meta for tensor in module.state_dict().values())
    values, _ = read_signature(type(module)).validate(SETTINGS[name])
    for setting, value in values.items():
        assert hasattr(module, setting)
        assert setting == "layer" or getattr(module, setting) == value


@pytest.mark.parametrize(("name", "settings", "message"), WRONG)
def test_settings_that_do_not_fit(name, settings, message):
    with pytest.raises(ValueError, match=message):
        COMPONENTS[name].load()(**settings)


@pytest.mark.parametrize("name", [name for name, component in COMPONENTS.items() if component.strategy])
def test_strategy_draws_settings_that_fit(name):
    @hypothesis.settings(max_examples=25, deadline=None)
    @hypothesis.given(import_target(COMPONENTS[name].strategy)())
    def build_it(settings):
        values, wrong = read_signature(COMPONENTS[name].load()).validate(settings)
        assert not wrong
        with torch.device("meta"):
            COMPONENTS[name].load()(**values)

    build_it()


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_survives_a_change_of_dtype(name, dtype):
    torch.manual_seed(0)
    plain = build(name).eval()
    changed = build(name).eval()
    changed.load_state_dict(plain.state_dict())
    changed.to(dtype)
    pixels, ids = torch.randn(2, 2, 7, 9), torch.randint(16, (2, 5))
    two = (torch.randn(2, 5, 8), torch.randn(2, 5, 8))
    spans = torch.tensor([[[0, 2], [1, 1], [1, 5]], [[0, 1], [0, 3], [4, 6]]])
    inputs = {
        **{one: (pixels,) for one in SETTINGS if one.startswith("vision.")},
        **{one: (pixels[..., :8],) for one in SETTINGS if "grid" in one},
        **{one: (torch.randn(2, 5, 8), ids) for one in ("position.ids", "text.segments")},
        **dict.fromkeys(("text.embedding", "text.bytes"), (ids,)),
        "position.alibi": (),
        "concat": (torch.randn(2, 3), torch.randn(2, 5)),
        "head.vocabulary_loss": (torch.randn(2, 5, 8), torch.randint(16, (2, 5))),
        "audio.logmel": (torch.randn(2, 900),),
        "audio.fbank": (torch.randn(2, 900),),
        "audio.patches": (torch.randn(2, 30, 20),),
        "audio.waveform": (torch.randn(2, 900),),
        "attention.prefix": (torch.randn(2, 5, 8), torch.arange(5).expand(2, 5) < 2),
        "attention.cross": (torch.randn(2, 5, 8), torch.randn(2, 3, 6)),
        "fusion.concat": two,
        "fusion.gate": two,
        "fusion.late": two,
        "fusion.dropout": (torch.rand(2, 5) > 0.5, torch.rand(2, 3) > 0.5),
        "loss.cross_entropy": (torch.randn(2, 5, 8), torch.randint(8, (2, 5))),
        "loss.regression": two,
        "loss.contrastive": (torch.randn(2, 8), torch.randn(2, 8)),
        "loss.sigmoid_contrastive": (torch.randn(2, 8), torch.randn(2, 8)),
        "loss.ctc": (torch.randn(2, 5, 8), torch.randint(7, (2, 2))),
        "metric.accuracy": (torch.randn(2, 5, 8), torch.randint(8, (2, 5))),
        "position.relative": (),
        "attention.relative": (torch.randn(2, 5, 8), torch.randn(2, 2 * 6 + 1)),
        "pool.token": (torch.randn(2, 5, 8), ids),
        "head.similarity": (torch.randn(2, 8), torch.randn(3, 8)),
        "loss.span": (torch.randn(2, 5, 2), torch.ones(2, 5, 2, dtype=torch.int64)),
        "span.vectors": (torch.randn(2, 5, 8), spans),
        "span.best": (torch.randn(2, 3, 8), torch.randn(2, 3), spans),
        "head.antecedents": (torch.randn(2, 3, 8), torch.randn(2, 3), spans),
        "loss.mentions": (torch.randn(2, 3), spans, F.pad(spans, (0, 1), value=1)),
        "loss.antecedents": (torch.randn(2, 3, 3), spans, F.pad(spans, (0, 1), value=1)),
        "loss.supervised_contrastive": (torch.randn(4, 8), torch.tensor([1, 2, 1, 2])),
    }.get(name, (torch.randn(2, 5, 8),))
    outputs = plain(*inputs)
    found = changed(*(part.to(dtype) if part.is_floating_point() else part for part in inputs))
    for got, expected in zip(*((one if isinstance(one, tuple) else (one,)) for one in (found, outputs)), strict=True):
        if not expected.is_floating_point():
            assert torch.equal(got, expected)
            continue
        assert got.dtype == dtype
        tolerance = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float64: 1e-6}[dtype]
        torch.testing.assert_close(got.double(), expected.double(), rtol=tolerance, atol=tolerance)
