"""Every built-in: registered, buildable without memory, and true to its contract's small print."""

import subprocess
import sys

import hypothesis
import pytest
import torch
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
}
COMPONENTS = {name: Registry().component(name) for name in SETTINGS}
WRONG = [
    ("text.embedding", {"vocab_size": 0, "d_model": 8}, "vocab_size must be above 0, but is 0"),
    ("position.layerwise", {"d_model": 8, "layer": 3, "layers": 3}, "layer must be 0 to layers-1 = 2, but is 3"),
    ("position.layerwise", {"d_model": 8, "layer": 0, "layers": 3, "growth": 0.0}, "growth must be above 0"),
    ("position.rotary", {"head_dim": 5}, "head_dim 5 is odd"),
    ("attention.self", {"d_model": 512, "heads": 7}, "d_model 512 is not a multiple of heads 7"),
    ("attention.self", {"d_model": 8, "heads": 0}, "heads must be above 0"),
    ("attention.self", {"d_model": 8, "heads": 4, "kv_heads": 3}, "heads 4 is not a multiple of kv_heads 3"),
    ("attention.self", {"d_model": 8, "heads": 4, "window": 0}, "window must be above 0"),
    ("attention.self", {"d_model": 8, "heads": 4, "dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ("feedforward.experts", {"d_model": 8, "d_ff": 8, "experts": 2, "top_k": 3}, "top_k 3 is more than experts 2"),
    ("dropout", {"rate": 1.5}, "rate must be at least 0 and below 1, but is 1.5"),
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
    inputs = {
        "text.embedding": (torch.randint(16, (2, 5)),),
        "position.alibi": (),
        "concat": (torch.randn(2, 3), torch.randn(2, 5)),
        "head.vocabulary_loss": (torch.randn(2, 5, 8), torch.randint(16, (2, 5))),
    }.get(name, (torch.randn(2, 5, 8),))
    outputs = plain(*inputs)
    found = changed(*(part.to(dtype) if part.is_floating_point() else part for part in inputs))
    for got, expected in zip(*((one if isinstance(one, tuple) else (one,)) for one in (found, outputs)), strict=True):
        assert got.dtype == dtype
        tolerance = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float64: 1e-6}[dtype]
        torch.testing.assert_close(got.double(), expected.double(), rtol=tolerance, atol=tolerance)
