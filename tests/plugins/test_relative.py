"""Relative positions, in buckets as transformers has them; tests/pipelines/pretrained has T5 as a whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim, export
from transformers.models.t5.modeling_t5 import T5Attention

from atinuke.compile.onnx_export import to_onnx
from atinuke.plugins.relative import RelativeAttention, RelativePosition


@given(st.integers(2, 20), st.integers(0, 300), st.booleans())
def test_buckets_are_those_of_t5(half: int, more: int, causal: bool) -> None:
    buckets, reach = 2 * half, 2 * half + more
    position = RelativePosition(3, buckets, reach, causal)
    distance = torch.arange(-reach, reach + 1)
    theirs = T5Attention._relative_position_bucket(-distance, not causal, buckets, reach)
    assert torch.equal(position.bucket, theirs)
    assert torch.equal(position(), position.weight[theirs].t())
    beyond = T5Attention._relative_position_bucket(torch.tensor([-9 * reach, 9 * reach]), not causal, buckets, reach)
    assert torch.equal(position.bucket[[-1, 0]], beyond)


def test_the_bias_of_a_pair_is_that_of_its_distance() -> None:
    module = RelativeAttention(4, heads=2, head_dim=3).double()
    torch.nn.init.zeros_(module.qkv.weight[:12].detach())  # no scores but the biases
    biases, x = torch.randn(2, 7, dtype=torch.float64), torch.randn(1, 6, 4, dtype=torch.float64)
    shares = torch.stack(
        [torch.stack([biases[:, min(max(i - j, -3), 3) + 3] for j in range(6)]) for i in range(6)]
    ).softmax(1)  # [query, key, head]
    value = (x @ module.qkv.weight[12:].t()).view(6, 2, 3)
    expected = torch.einsum("ijh,jhd->ihd", shares, value).flatten(1) @ module.output.weight.t()
    torch.testing.assert_close(module(x, biases)[0], expected)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"buckets": 3}, "buckets must be at least 4, but are 3"),
        ({"buckets": 1, "causal": True}, "buckets must be at least 2, but are 1"),
        ({"reach": 8}, "reach 8 must be above 8"),
    ],
)
def test_buckets_that_hold_nothing_are_refused(settings: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        RelativePosition(2, **settings)


class Biased(nn.Module):
    """A learned bias and the attention that adds it to its scores."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.attention = RelativePosition(2), RelativeAttention(8, 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.attention(x, self.bias())
        return found


def test_a_learned_bias_is_exported_to_onnx() -> None:
    free = {0: Dim("batch", min=1, max=4), 1: Dim("sequence", min=1, max=12)}
    model = Biased().eval()
    assert model.bias.weight.requires_grad
    with torch.no_grad():
        exported = export(model, (torch.randn(2, 5, 8),), dynamic_shapes=(free,))
    assert to_onnx(exported, 18).graph.node
