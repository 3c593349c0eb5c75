import copy
import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from atinuke.plugins.position import (
    AlibiPosition,
    LayerwisePosition,
    LearnedPosition,
    PositionIds,
    RotaryPosition,
    SinusoidalPosition,
)

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def encoding(length: int, width: int, base: float = 10000.0, phase: float = 0.0) -> np.ndarray:
    """Vaswani et al. (2017), section 3.5, channel by channel, with an angle added."""
    result = np.zeros((length, width))
    for place in range(length):
        for channel in range(width):
            angle = place / base ** (2 * (channel // 2) / width) + phase
            result[place, channel] = math.cos(angle) if channel % 2 else math.sin(angle)
    return result


def added(module: torch.nn.Module, length: int = 37) -> np.ndarray:
    """What a double-precision module adds to its input."""
    x = torch.randn(2, length, module.d_model, dtype=torch.float64)
    difference = module.double()(x) - x
    torch.testing.assert_close(difference[0], difference[1])
    return difference[0].detach().numpy()


@pytest.mark.parametrize("width", [1, 2, 7, 16])
@pytest.mark.parametrize("base", [10000.0, 50.0])
def test_sinusoidal_is_the_formula(width, base):
    np.testing.assert_allclose(added(SinusoidalPosition(width, base)), encoding(37, width, base), **EXACT)


@pytest.mark.parametrize("layer", [0, 2, 3])
@pytest.mark.parametrize("gain", [False, True])
def test_layerwise_at_its_neutral_settings_is_vaswanis(layer, gain):
    module = LayerwisePosition(9, layer, 4, turns=0.0, growth=1.0, gain=gain)
    np.testing.assert_allclose(added(module), encoding(37, 9), **EXACT)
    assert sum(parameter.numel() for parameter in module.parameters()) == (1 if gain else 0)


@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize(("turns", "growth"), [(1.0, 1.0), (0.3, 1.0), (0.0, 8.0), (2.5, 0.25)])
def test_layerwise_is_the_formula(layer, turns, growth):
    module = LayerwisePosition(10, layer, 4, turns, growth, base=300.0)
    expected = encoding(37, 10, 300.0 * growth ** (layer / 4), 2 * math.pi * turns * layer / 4)
    np.testing.assert_allclose(added(module), expected, **EXACT)


def test_layerwise_gain_scales_and_learns():
    module = LayerwisePosition(8, 1, 4, gain=True)
    with torch.no_grad():
        module.amplitude.fill_(3.0)
    expected = 3 * encoding(37, 8, phase=math.pi / 2)
    np.testing.assert_allclose(added(module), expected, **EXACT)
    module(torch.zeros(1, 5, 8, dtype=torch.float64)).sum().backward()
    assert module.amplitude.grad.item() == pytest.approx(encoding(5, 8, phase=math.pi / 2).sum())


def test_layers_of_one_stack_share_their_code():
    def count(graph, _):
        compiled.append(graph)
        return graph.forward

    compiled: list[object] = []
    torch.compiler.reset()
    for layer in range(5):
        torch.compile(LayerwisePosition(8, layer, 5), backend=count)(torch.zeros(2, 6, 8))
    assert len(compiled) == 1


def test_learned_adds_its_rows():
    module = LearnedPosition(8, 12)
    x = torch.randn(2, 12, 8)
    torch.testing.assert_close(module(x), x + module.weight)
    torch.testing.assert_close(module(x[:, :5]), x[:, :5] + module.weight[:5])
    with pytest.raises(IndexError):
        module(torch.randn(2, 13, 8))


def test_positions_may_be_said():
    learned, said = LearnedPosition(8, 12), PositionIds(8, 12)
    said.load_state_dict(learned.state_dict())
    x = torch.randn(2, 12, 8)
    assert torch.equal(said(x, torch.arange(12).expand(2, -1)), learned(x))
    packed = said(x, torch.tensor([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]).expand(2, -1))
    assert torch.equal(packed[:, :5], learned(x[:, :5]))
    assert torch.equal(packed[:, 5:], learned(x[:, 5:]))
    with pytest.raises(IndexError):
        said(x, torch.full((2, 12), 12))


@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_rotary_is_llamas(base):
    config = LlamaConfig(
        hidden_size=24, num_attention_heads=3, rope_parameters={"rope_type": "default", "rope_theta": base}
    )
    x = torch.randn(2, 300, 24)
    cos, sin = LlamaRotaryEmbedding(config)(x, torch.arange(300).expand(2, -1))
    expected = torch.cat((cos[..., :4], sin[..., :4]), -1)
    torch.testing.assert_close(RotaryPosition(8, base)(x), expected, rtol=0, atol=5e-5)


def test_rotary_is_the_formula():
    pairs = encoding(37, 8)
    expected = np.concatenate((pairs[:, 1::2], pairs[:, 0::2]), -1)
    found = RotaryPosition(8).double()(torch.zeros(2, 37, 5, dtype=torch.float64))
    np.testing.assert_allclose(found[1].numpy(), expected, **EXACT)


@pytest.mark.parametrize("heads", [1, 2, 8, 12, 20])
def test_alibi_is_blooms(heads):
    theirs = build_alibi_tensor(torch.ones(1, 3, dtype=torch.long), heads, torch.float32)
    torch.testing.assert_close(AlibiPosition(heads)(), theirs[:, 0, 1], rtol=1e-6, atol=0)
    assert torch.equal(AlibiPosition(heads).half().double()(), AlibiPosition(heads).double()())


STEPPED = [
    SinusoidalPosition(8),
    LayerwisePosition(8, 2, 5, turns=0.7, growth=3.0, gain=True),
    LearnedPosition(8, 40),
    RotaryPosition(6),
]


@pytest.mark.parametrize("module", STEPPED, ids=lambda module: type(module).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_step_continues_each_row_where_it_is(module, dtype):
    module = copy.deepcopy(module).to(dtype)
    x = torch.randn(3, 40, 8, dtype=dtype)
    whole = module(x)
    starts = torch.tensor([0, 17, 33])
    part = torch.stack([x[row, start : start + 7] for row, start in enumerate(starts)])
    expected = torch.stack([whole[row, start : start + 7] for row, start in enumerate(starts)])
    torch.testing.assert_close(module.step(part, starts), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("module", [SinusoidalPosition(8), LayerwisePosition(8, 2, 5), RotaryPosition(8)], ids=type)
def test_half_precision_keeps_far_positions_apart(module, dtype):
    x = torch.zeros(1, 3000, 8)
    far = copy.deepcopy(module).to(dtype)(x.to(dtype)).float()
    torch.testing.assert_close(far, module(x), rtol=0, atol=torch.finfo(dtype).eps)
