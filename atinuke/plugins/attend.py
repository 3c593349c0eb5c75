"""Attention of queries to keys, by what computes it fastest: the fused kernel, or its products written out."""

import torch
import torch.nn.functional as F
from torch import Tensor

from atinuke.plugins.dropout import drop

WRITTEN_OUT = 512  # tokens: the longest text whose scores a compiler holds whole in training


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(query keyᵀ * scale + bias) value, each `[batch, heads, positions, channels]`; fewer heads of keys and
    values are those of as many groups of queries.

    `bias` is added to the scores, or says which keys a query sees; it may hide some, but not all. `causal` wants none,
    and hides what comes after a query. `scale` is channels**-0.5 unless given, `dropout` that of the weights.
    """
    if key.shape[1] == query.shape[1] and (_drops(query, dropout) or (bias is None and _compiler_trains(query))):
        return _written_out(query, key, value, bias, causal, scale, dropout)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=bias,
        dropout_p=dropout,
        is_causal=causal,
        scale=scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def _drops(query: Tensor, dropout: float) -> bool:
    """Whether weights are dropped on a CPU, where the kernel writes its products out too, and draws slowly."""
    return dropout > 0 and query.device.type == "cpu" and not torch.compiler.is_compiling()


def _compiler_trains(query: Tensor) -> bool:
    """Whether a compiler trains on short texts, in half precision, on a CPU: there the products written out are faster
    than the fused kernel, in its backward pass above all (torch 2.13; docs/log.md)."""
    return (
        torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and torch.is_grad_enabled()
        and query.device.type == "cpu"
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[2] <= WRITTEN_OUT
    )


def _written_out(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, causal: bool, scale: float | None, dropout: float
) -> Tensor:
    """Scores are rounded to what a query is of, here bfloat16 as a rule; what is made of them is not."""
    query = query * (query.shape[-1] ** -0.5 if scale is None else scale)  # before it, float16 would overflow
    scores = (query @ key.transpose(-1, -2)).to(torch.promote_types(query.dtype, torch.float32))
    if causal:
        queries, keys = (torch.arange(scores.shape[axis], device=scores.device) for axis in (-2, -1))
        scores = scores.masked_fill(keys > queries[:, None], float("-inf"))
    if bias is not None:
        scores = scores.masked_fill(~bias, float("-inf")) if bias.dtype == torch.bool else scores + bias
    return drop(torch.softmax(scores, dim=-1).to(query.dtype), dropout) @ value
