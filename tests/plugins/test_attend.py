"""Attention written out is the fused kernel's, and what it drops are weights."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from atinuke.plugins import attend as module
from atinuke.plugins.attend import attend


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 7),
    st.integers(1, 7),
    st.sampled_from(["none", "causal", "added", "visible"]),
    st.sampled_from([None, 1.0, 0.3]),
)
def test_written_out_it_is_what_the_kernel_makes(
    batch: int, heads: int, queries: int, keys: int, kind: str, scale: float | None
) -> None:
    query, key, value = (
        torch.randn(batch, heads, n, 4, dtype=torch.float64, requires_grad=True) for n in (queries, keys, keys)
    )
    visible = torch.rand(batch, 1, queries, keys) > 0.4
    visible[..., 0] = True
    added = torch.where(visible, torch.randn(batch, heads, queries, keys).double(), float("-inf"))
    bias = {"added": added, "visible": visible}.get(kind)
    causal = kind == "causal"
    ours = module._written_out(query, key, value, bias, causal, scale, 0.0)
    theirs = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=causal, scale=scale)
    torch.testing.assert_close(ours, theirs)
    given_ = torch.randn_like(ours)
    mine, other = (torch.autograd.grad(one, (query, key, value), given_) for one in (ours, theirs))
    torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("kind", ["none", "causal", "visible"])
def test_weights_are_dropped_and_their_mean_stays(kind: str) -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 3, 5, 4, dtype=torch.float64).expand(2, 20_000, 3, 5, 4)
    value = torch.eye(5, dtype=torch.float64).expand(20_000, 3, 5, 5)  # so that the weights are what comes out
    bias = torch.rand(1, 1, 5, 5) > 0.3 if kind == "visible" else None
    if bias is not None:
        bias = bias | torch.eye(5, dtype=torch.bool)
    dropped = attend(query, key, value, bias, kind == "causal", dropout=0.25)
    whole = attend(query, key, value, bias, kind == "causal")
    kept = (dropped != 0) | (whole == 0)
    torch.testing.assert_close(dropped, torch.where(kept, whole / 0.75, 0.0))
    torch.testing.assert_close(dropped.mean(0), whole.mean(0), rtol=0, atol=0.02)
    assert kept[whole != 0].double().mean().item() == pytest.approx(0.75, abs=0.002)


def test_groups_of_queries_share_keys_while_dropping_too() -> None:
    query, key, value = (torch.randn(2, heads, 5, 4) for heads in (6, 2, 2))
    assert attend(query, key, value, dropout=0.5).shape == query.shape


@pytest.mark.parametrize(("dtype", "rough"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3), (torch.float32, 1e-5)])
@pytest.mark.parametrize("size", [1, 60])  # products of 60 x 60 x 64 are more than float16 has
def test_half_precision_is_near(dtype: torch.dtype, rough: float, size: int) -> None:
    torch.manual_seed(0)
    query, key = (size * torch.ones(2, 3, 5, 64, dtype=dtype) for _ in range(2))
    value = torch.randn(2, 3, 5, 64, dtype=dtype)
    key[:, :, 0] *= 0.5
    ours = module._written_out(query, key, value, None, False, None, 0.0)
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=rough)
