import math

import pytest
import torch
from torch import nn

from atinuke.plugins.attention import SelfAttention
from atinuke.plugins.cross_attention import CrossAttention

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def build(*settings, **more) -> CrossAttention:
    """Attention with weights large enough that what it attends to shows."""
    torch.manual_seed(0)
    module = CrossAttention(*settings, **more).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(std=0.5 if name.endswith("bias") else 1.5 / math.sqrt(module.d_model))
    return module


def theirs_of(ours: CrossAttention) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(ours.d_model, ours.heads, kdim=ours.memory_dim, vdim=ours.memory_dim).eval()
    theirs.batch_first = True
    key, value = ours.key_value.weight.chunk(2)
    separate = {"q_proj_weight": ours.query.weight, "k_proj_weight": key, "v_proj_weight": value}
    if ours.memory_dim == ours.d_model:
        separate = {"in_proj_weight": torch.cat((ours.query.weight, key, value))}
    bias = torch.cat((ours.query.bias, ours.key_value.bias))
    output = {"out_proj.weight": ours.output.weight, "out_proj.bias": ours.output.bias}
    theirs.load_state_dict({**separate, "in_proj_bias": bias, **output})
    return theirs


@pytest.mark.parametrize("memory_dim", [24, 10])
@pytest.mark.parametrize("masked", [False, True])
def test_is_torchs_multi_head_attention(memory_dim, masked):
    ours = build(24, memory_dim, 4)
    x, memory = torch.randn(2, 5, 24), torch.randn(2, 7, memory_dim)
    mask = torch.tensor([[True] * 7, [False, True, True, False, True, False, False]]) if masked else None
    expected, _ = theirs_of(ours)(
        x, memory, memory, key_padding_mask=None if mask is None else ~mask, need_weights=False
    )
    torch.testing.assert_close(ours(x, memory, mask), expected, **CLOSE)


def test_to_itself_is_self_attention():
    ours, itself = build(24, 24, 4), SelfAttention(24, 4, causal=False).eval()
    with torch.no_grad():
        for part in ("weight", "bias"):
            joined = torch.cat((getattr(ours.query, part), getattr(ours.key_value, part)))
            getattr(itself.qkv, part).copy_(joined)
            getattr(itself.output, part).copy_(getattr(ours.output, part))
    x, mask = torch.randn(3, 6, 24), torch.rand(3, 6) > 0.5
    mask[1] = False
    torch.testing.assert_close(ours(x, x, mask), itself(x, mask), **CLOSE)


def test_a_wholly_masked_memory_gives_the_bias_and_passes_no_gradient():
    ours = build(8, 6, 2)
    x, memory = torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 4, 6, requires_grad=True)
    mask = torch.tensor([[False] * 4, [True] * 4])
    y = ours(x, memory, mask)
    assert torch.equal(y[0], ours.output.bias.expand(3, 8))
    y.sum().backward()
    for given in (x, memory):
        assert not given.grad[0].any()
        assert given.grad[1].any()


def test_masked_is_absent():
    ours = build(8, 6, 2).double()
    x, memory = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 6).double()
    mask = torch.tensor([[True, True, True, False, False]] * 2)
    torch.testing.assert_close(ours(x, memory, mask), ours(x, memory[:, :3]), rtol=1e-12, atol=1e-12)


def test_dropout_is_of_training_only():
    ours = build(8, 6, 2, dropout=0.5)
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    assert torch.equal(ours(x, memory), ours(x, memory))
    ours.train()
    assert not torch.equal(ours(x, memory), ours(x, memory))
