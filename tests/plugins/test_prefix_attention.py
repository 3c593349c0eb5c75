"""Prefix-causal attention against NumPy in float64, and what its steps promise."""

import numpy as np
import pytest
import torch

from atinuke.plugins.attention import SelfAttention, rotate
from atinuke.plugins.position import RotaryPosition
from atinuke.plugins.prefix_attention import PrefixAttention

BATCH, LENGTH, WIDTH, HEADS = 3, 7, 12, 6
PREFIX = torch.arange(LENGTH) < torch.tensor([[4], [0], [7]])
HOLES = torch.rand((BATCH, LENGTH), generator=torch.Generator().manual_seed(2)) > 0.5
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def build(kv_heads: int | None = None) -> PrefixAttention:
    torch.manual_seed(0)
    module = PrefixAttention(WIDTH, HEADS, kv_heads).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def numpy_attention(module: PrefixAttention, x, prefix, mask, rotation=None, slopes=None):
    """Query by query and key by key, as the docstring says it."""
    weight, bias, width = module.qkv.weight.detach().numpy(), module.qkv.bias.detach().numpy(), WIDTH // HEADS
    answer = np.zeros((BATCH, LENGTH, WIDTH))
    mixed = (x.numpy() @ weight.T + bias).reshape(BATCH, LENGTH, -1, width)
    group = HEADS // module.kv_heads
    if rotation is not None:
        turned = rotate(torch.from_numpy(mixed), rotation[:, :, None]).numpy()
        mixed[:, :, : HEADS + module.kv_heads] = turned[:, :, : HEADS + module.kv_heads]
    for b in range(BATCH):
        for h in range(HEADS):
            keys = mixed[b, :, HEADS + h // group]
            values = mixed[b, :, HEADS + module.kv_heads + h // group]
            for i in range(LENGTH):
                seen = [j for j in range(LENGTH) if (j <= i or (prefix[b, i] and prefix[b, j])) and mask[b, j]]
                if not seen:
                    continue
                scores = np.array([mixed[b, i, h] @ keys[j] / np.sqrt(width) for j in seen])
                if slopes is not None:
                    scores -= float(slopes[h]) * np.abs(np.array(seen) - i)
                shares = np.exp(scores - scores.max())
                answer[b, i, h * width : (h + 1) * width] = (shares / shares.sum()) @ values[seen]
    return answer @ module.output.weight.detach().numpy().T + module.output.bias.detach().numpy()


@pytest.mark.parametrize("kv_heads", [None, 2])
@pytest.mark.parametrize("prefix", [PREFIX, HOLES])
@torch.no_grad()
def test_is_numpy(kv_heads, prefix) -> None:
    module = build(kv_heads)
    x = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64)
    mask = torch.arange(LENGTH) < torch.tensor([[7], [5], [6]])
    mask[1, 0] = False
    rotation, slopes = RotaryPosition(WIDTH // HEADS)(x), torch.rand(HEADS, dtype=torch.float64)
    everything = torch.ones_like(mask)
    np.testing.assert_allclose(module(x, prefix).numpy(), numpy_attention(module, x, prefix, everything), rtol=1e-10)
    np.testing.assert_allclose(
        module(x, prefix, mask, rotation, slopes).numpy(),
        numpy_attention(module, x, prefix, mask, rotation, slopes),
        rtol=1e-10,
    )


@torch.no_grad()
def test_between_causal_and_full_attention() -> None:
    module = build()
    x = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64)
    for causal in (True, False):
        other = SelfAttention(WIDTH, HEADS, causal=causal).double().eval()
        other.load_state_dict(module.state_dict())
        prefix = torch.full((BATCH, LENGTH), not causal)
        torch.testing.assert_close(module(x, prefix), other(x), **EXACT)


@torch.no_grad()
def test_what_follows_changes_nothing_before_it() -> None:
    module = build()
    x, other = torch.randn(2, BATCH, LENGTH, WIDTH, dtype=torch.float64)
    other[:, :5] = x[:, :5]
    torch.testing.assert_close(module(x, PREFIX)[:2, :5], module(other, PREFIX)[:2, :5], **EXACT)
    assert not torch.allclose(module(x, PREFIX)[2, :5], module(other, PREFIX)[2, :5])


@torch.no_grad()
def test_steps_are_forward_where_the_prefix_comes_at_once_and_not_where_it_is_cut() -> None:
    module = build(2)
    x = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64)
    prefix = PREFIX[:2]
    expected = module(x, prefix)

    def stepped(cuts: list[int]) -> torch.Tensor:
        state, found = module.state(2, 9), []
        for start, end in zip([0, *cuts], [*cuts, LENGTH], strict=True):
            position = torch.full((2,), start)
            y, *state = module.step(x[:, start:end], position, *state, prefix_mask=prefix[:, start:end])
            found.append(y)
        return torch.cat(found, 1)

    for cuts in ([4], [4, 5, 6], [5], []):
        torch.testing.assert_close(stepped(cuts), expected, **EXACT)
    assert not torch.allclose(stepped([2])[0], expected[0])
    torch.testing.assert_close(stepped([2])[1], expected[1], **EXACT)  # it has no prefix
