import math

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim
from transformers import GPT2Config, LlamaConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

from atinuke.plugins.attention import SelfAttention, WideAttention
from atinuke.plugins.position import AlibiPosition, RotaryPosition

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
EXACT = {"rtol": 1e-11, "atol": 1e-11}


def build(*settings, **more) -> SelfAttention:
    """Attention with weights large enough that what it attends to shows."""
    torch.manual_seed(0)
    module = (WideAttention if "head_dim" in more else SelfAttention)(*settings, **more).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(std=0.5 if name.endswith("bias") else 1.5 / math.sqrt(module.d_model))
    return module


def loop(module: SelfAttention, x, mask=None, rotation=None, slopes=None) -> np.ndarray:
    """Attention one query at a time in float64."""
    heads, kv_heads, size = module.heads, module.kv_heads, module.head_dim
    weights = {name: parameter.detach().double().numpy() for name, parameter in module.named_parameters()}
    mixed = x.double().numpy() @ weights["qkv.weight"].T + weights.get("qkv.bias", 0)
    mixed = mixed.reshape(*x.shape[:2], heads + 2 * kv_heads, size)
    if rotation is not None:
        wave = (
            rotation.double().numpy()[:, :, None, : size // 2] + 1j * rotation.double().numpy()[:, :, None, size // 2 :]
        )
        turned = (mixed[..., : size // 2] + 1j * mixed[..., size // 2 :]) * wave
        turned = np.concatenate((turned.real, turned.imag), -1)
        mixed = np.concatenate((turned[:, :, : heads + kv_heads], mixed[:, :, heads + kv_heads :]), 2)
    result = np.zeros((*x.shape[:2], heads, size))
    for row, head, i in np.ndindex(x.shape[0], heads, x.shape[1]):
        key_head = heads + head * kv_heads // heads
        seen = [
            j
            for j in range(x.shape[1])
            if (mask is None or mask[row, j])
            and (not module.causal or j <= i)
            and (module.window is None or abs(i - j) < module.window)
        ]
        if seen:
            scores = mixed[row, seen, key_head] @ mixed[row, i, head] / math.sqrt(size)
            if slopes is not None:
                scores -= float(slopes[head]) * np.abs(np.array(seen) - i)
            share = np.exp(scores - scores.max())
            result[row, i, head] = share / share.sum() @ mixed[row, seen, key_head + kv_heads]
    return result.reshape(x.shape) @ weights["output.weight"].T + weights.get("output.bias", 0)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("kv_heads", [None, 2, 1])
@pytest.mark.parametrize("extra", ["plain", "mask", "rotary", "alibi", "all"])
def test_equals_the_loop(causal, window, kv_heads, extra):
    module = build(24, 6, kv_heads, causal, window, bias=extra != "rotary").double()
    x = torch.randn(3, 9, 24, dtype=torch.float64)
    mask = torch.rand(3, 9) > 0.4
    mask[1, :4] = False
    mask[2] = False
    given = {
        "attention_mask": mask if extra in ("mask", "all") else None,
        "rotation": RotaryPosition(4).double()(x) if extra in ("rotary", "all") else None,
        "slopes": AlibiPosition(6).double()() if extra in ("alibi", "all") else None,
    }
    expected = loop(module, x, *given.values())
    np.testing.assert_allclose(module(x, **given).detach().numpy(), expected, **EXACT)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [False, True])
def test_is_torchs_multi_head_attention(causal, padded):
    ours = build(24, 4, causal=causal)
    theirs = nn.MultiheadAttention(24, 4, batch_first=True).eval()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )
    x = torch.randn(2, 7, 24)
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3]) if padded else None
    expected, _ = theirs(
        x,
        x,
        x,
        key_padding_mask=None if mask is None else ~mask,
        attn_mask=torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None,
        need_weights=False,
    )
    torch.testing.assert_close(ours(x, mask), expected, **CLOSE)


def causal_bias(length: int) -> torch.Tensor:
    return torch.full((length, length), -1e9).triu(1)[None, None]


def test_is_gpt2s():
    ours = build(24, 4)
    theirs = GPT2Attention(GPT2Config(n_embd=24, n_head=4, attn_implementation="eager"), layer_idx=0).eval()
    with torch.no_grad():
        for linear, convolution in ((ours.qkv, theirs.c_attn), (ours.output, theirs.c_proj)):
            convolution.weight.copy_(linear.weight.t())
            convolution.bias.copy_(linear.bias)
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(x), theirs(x, attention_mask=causal_bias(7))[0], **CLOSE)


@pytest.mark.parametrize("width", [4, 6])
def test_is_llamas(width):
    ours = build(24, 6, kv_heads=2, bias=False, head_dim=width)
    config = LlamaConfig(
        hidden_size=24, num_attention_heads=6, num_key_value_heads=2, head_dim=width, attn_implementation="eager"
    )
    theirs = LlamaAttention(config, layer_idx=0).eval()
    query, key, value = ours.qkv.weight.split((6 * width, 2 * width, 2 * width))
    theirs.load_state_dict(
        {
            "q_proj.weight": query,
            "k_proj.weight": key,
            "v_proj.weight": value,
            "o_proj.weight": ours.output.weight,
        }
    )
    x = torch.randn(2, 50, 24)
    waves = LlamaRotaryEmbedding(config)(x, torch.arange(50)[None])
    expected = theirs(x, position_embeddings=waves, attention_mask=causal_bias(50))[0]
    torch.testing.assert_close(ours(x, rotation=RotaryPosition(width)(x)), expected, **CLOSE)


def test_slopes_are_blooms():
    ours = build(24, 6)
    x = torch.randn(2, 9, 24)
    query, key, value = (
        part.view(2, 9, 6, 4).transpose(1, 2)
        for part in torch.nn.functional.linear(x, ours.qkv.weight, ours.qkv.bias).split(24, -1)
    )
    alibi = build_alibi_tensor(torch.ones(2, 9, dtype=torch.long), 6, torch.float32).view(2, 6, 1, 9)
    share = (query @ key.transpose(-1, -2) / 2 + alibi + causal_bias(9)).softmax(-1)
    expected = ours.output((share @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(ours(x, slopes=AlibiPosition(6)()), expected, **CLOSE)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_has_no_influence(causal):
    module = build(24, 4, causal=causal)
    x, mask = torch.randn(2, 9, 24), torch.ones(2, 9, dtype=torch.bool)
    mask[0, 6:] = False
    mask[1, :3] = False
    changed = torch.where(mask[..., None], x, 1e3 * torch.randn_like(x))
    assert torch.equal(module(x, mask)[mask], module(changed, mask)[mask])
    torch.testing.assert_close(module(x, mask)[0, :6], module(x[:1, :6])[0], **CLOSE)


def test_a_query_that_sees_nothing_gives_the_bias_and_no_gradient():
    module = build(24, 4)
    x = torch.randn(2, 5, 24, requires_grad=True)
    mask = torch.tensor([[False] * 5, [False, False, True, True, True]])
    y = module(x, mask)
    blind = torch.cat((y[0], y[1, :2]))
    assert torch.equal(blind, module.output.bias.expand(7, -1))
    y.square().sum().backward()
    assert x.grad.isfinite().all()
    assert not x.grad[0].any()
    assert x.grad[1, 2:].abs().min() > 0


def test_dropout_is_only_for_training():
    module, x = build(24, 4, dropout=0.5), torch.randn(2, 5, 24)
    torch.testing.assert_close(module(x), module.train(False)(x), rtol=0, atol=0)
    assert not torch.equal(module.train()(x), module(x))


def stepped(module, x, chunks, capacity, rotary=None, slopes=None, bound=None):
    """Steps a text, chunk by chunk, through a cache full of stale numbers (or a view of its first `bound` places)."""
    state = tuple(cache.normal_() for cache in module.state(x.shape[0], capacity))
    start, outputs = 0, []
    for size in chunks:
        part, position = x[:, start : start + size], torch.full((x.shape[0],), start)
        rotation = None if rotary is None else rotary.step(part, position)
        view = tuple(cache[:, :, :bound] for cache in state)
        y, *after = module.step(part, position, *view, rotation=rotation, slopes=slopes)
        assert all(new is old for new, old in zip(after, view, strict=True))
        outputs.append(y)
        start += size
    return torch.cat(outputs, 1)


@pytest.mark.parametrize("chunks", [[9], [1] * 9, [4, 1, 3, 1], [1, 8]])
@pytest.mark.parametrize("kv_heads", [None, 2])
@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("where", ["none", "rotary", "alibi"])
def test_step_equals_forward(chunks, kv_heads, window, where):
    module = build(24, 6, kv_heads, window=window)
    x = torch.randn(2, 9, 24)
    rotary = RotaryPosition(4) if where == "rotary" else None
    slopes = AlibiPosition(6)() if where == "alibi" else None
    whole = module(x, rotation=None if rotary is None else rotary(x), slopes=slopes)
    for bound in (None, 10):
        found = stepped(module, x, chunks, 16, rotary, slopes, bound)
        torch.testing.assert_close(found, whole, rtol=2e-6, atol=2e-6)


def test_rows_at_different_positions():
    """A batch of prompts of lengths 5, 2 and 4, padded on the right, then two more tokens each, then three at once."""
    module, rotary = build(24, 6, 2, window=6), RotaryPosition(4)
    lengths = torch.tensor([5, 2, 4])
    x = torch.randn(3, 10, 24)
    whole = module(x, rotation=rotary(x))
    prompt = x[:, :5].clone()
    for row, length in enumerate(lengths):
        prompt[row, length:] = 100
    state = module.state(3, 12)
    zero = torch.zeros(3, dtype=torch.long)
    y, *state = module.step(prompt, zero, *state, rotation=rotary.step(prompt, zero))
    for row, length in enumerate(lengths):
        torch.testing.assert_close(y[row, :length], whole[row, :length], **CLOSE)
    position = lengths
    for size in (1, 1, 3):
        places = position[:, None] + torch.arange(size)
        part = x[torch.arange(3)[:, None], places]
        y, *state = module.step(part, position, *state, rotation=rotary.step(part, position))
        torch.testing.assert_close(y, whole[torch.arange(3)[:, None], places], **CLOSE)
        position = position + size


def test_what_lies_outside_the_cache_is_an_error():
    module = build(24, 6)
    with pytest.raises(IndexError):
        module.step(torch.randn(1, 3, 24), torch.tensor([6]), *module.state(1, 8))


def test_no_state_without_causality():
    with pytest.raises(ValueError, match="not causal"):
        SelfAttention(24, 6, causal=False).state(1, 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_step_survives_a_change_of_dtype(dtype):
    module, x = build(24, 6, 2).to(dtype), torch.randn(2, 9, 24, dtype=dtype)
    slopes = AlibiPosition(6).to(dtype)()
    found = stepped(module, x, [4, 1, 3, 1], 16, RotaryPosition(4), slopes)
    assert found.dtype == dtype
    tolerance = 32 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, module(x, rotation=RotaryPosition(4)(x), slopes=slopes), rtol=0, atol=tolerance)


BATCH, SEQUENCE = Dim("batch", min=1, max=8), Dim("sequence", min=1, max=64)
FREE = {0: BATCH, 1: SEQUENCE}


class Step(nn.Module):
    """The incremental form as a module of its own."""

    def __init__(self, module: SelfAttention) -> None:
        super().__init__()
        self.module = module
        self.rotary = RotaryPosition(module.head_dim)

    def forward(self, x, position, keys, values):
        return self.module.step(x, position, keys, values, rotation=self.rotary.step(x, position))


@pytest.mark.parametrize("window", [None, 4])
def test_forward_exports_with_free_sizes(window):
    module = build(24, 6, 2, window=window)
    example = (torch.randn(2, 5, 24), torch.ones(2, 5, dtype=torch.bool), torch.randn(2, 5, 4), torch.randn(6))
    program = torch.export.export(module, example, dynamic_shapes=(FREE, FREE, FREE, {}))
    for batch, sequence in ((1, 1), (3, 40)):
        inputs = (
            torch.randn(batch, sequence, 24),
            torch.rand(batch, sequence) > 0.5,
            torch.randn(batch, sequence, 4),
            torch.rand(6),
        )
        torch.testing.assert_close(program.module()(*inputs), module(*inputs), **CLOSE)


@pytest.mark.parametrize("single", [True, False])
def test_step_exports_with_free_sizes(single):
    """For one token at a time, and for any number."""
    module = Step(build(24, 6, 2))
    example = (torch.randn(2, 1 if single else 5, 24), torch.tensor([0, 3]), *module.module.state(2, 16))
    cache = {0: BATCH, 2: Dim("capacity", min=2, max=64)}
    free = ({0: BATCH} if single else FREE, {0: BATCH}, cache, cache)
    program = torch.export.export(module, example, dynamic_shapes=free)
    for batch, sequence, capacity in ((1, 1, 20), (3, 1 if single else 7, 30)):
        x, position = torch.randn(batch, sequence, 24), torch.randint(5, (batch,))
        state = tuple(cache.normal_() for cache in module.module.state(batch, capacity))
        expected = module(x, position, *(cache.clone() for cache in state))
        for got, wanted in zip(program.module()(x, position, *state), expected, strict=True):
            torch.testing.assert_close(got, wanted, **CLOSE)


@pytest.mark.parametrize("opset", [20, 23])
def test_onnx_runtime_agrees(opset, tmp_path):
    """With a mask, blind queries included; without one there is nothing but a flag."""
    module = build(24, 6, 2)
    example = {"x": torch.randn(2, 5, 24), "attention_mask": torch.ones(2, 5, dtype=torch.bool)}
    shapes = {"x": FREE, "attention_mask": FREE}
    program = torch.export.export(module, (), example, dynamic_shapes=shapes)
    path = tmp_path / "attention.onnx"
    torch.onnx.export(
        program, (), path, kwargs=example, dynamo=True, dynamic_shapes=shapes, opset_version=opset, verbose=False
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, sequence in ((1, 3), (4, 21)):
        x, mask = torch.randn(batch, sequence, 24), torch.rand(batch, sequence) > 0.5
        mask[0] = False
        (found,) = session.run(None, {"x": x.numpy(), "attention_mask": mask.numpy()})
        np.testing.assert_allclose(found, module(x, mask).detach().numpy(), **CLOSE)
