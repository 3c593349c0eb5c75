import pytest
import torch
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead

from atinuke.plugins.pool import AttentionPool, FirstPool, LastPool, MeanPool, TokenPool

MASK = torch.tensor([[True, True, False], [False, False, False], [False, True, True]])


def test_mean_is_over_what_counts():
    x = torch.randn(3, 3, 4, dtype=torch.float64)
    output, mask = MeanPool()(x, MASK)
    expected = torch.stack((x[0, :2].mean(0), torch.zeros(4), x[2, 1:].mean(0)))
    torch.testing.assert_close(output, expected, rtol=1e-14, atol=1e-14)
    assert mask.tolist() == [True, False, True]
    torch.testing.assert_close(MeanPool()(x).output, x.mean(1))


def test_mean_of_many_in_half_precision_does_not_overflow():
    x = torch.full((1, 5000, 2), 100.0, dtype=torch.float16)
    assert torch.equal(MeanPool()(x).output, torch.full((1, 2), 100.0, dtype=torch.float16))


def test_first_is_the_first_that_counts():
    x = torch.randn(3, 3, 4)
    output, mask = FirstPool()(x, MASK)
    assert torch.equal(output, torch.stack((x[0, 0], torch.zeros(4), x[2, 1])))
    assert mask.tolist() == [True, False, True]
    assert torch.equal(FirstPool()(x).output, x[:, 0])


def test_first_may_be_the_mean_of_several():
    x = torch.randn(3, 3, 4)
    output, _ = FirstPool(count=2)(x, MASK)
    torch.testing.assert_close(output, torch.stack((x[0, :2].mean(0), torch.zeros(4), x[2, 1:].mean(0))))
    torch.testing.assert_close(FirstPool(count=2)(x).output, x[:, :2].mean(1))


def test_token_is_the_first_of_its_kind_that_counts():
    x, ids = torch.randn(3, 3, 4), torch.tensor([[5, 7, 7], [7, 7, 7], [7, 5, 7]])
    output, mask = TokenPool(7)(x, ids, MASK)
    assert torch.equal(output, torch.stack((x[0, 1], torch.zeros(4), x[2, 2])))
    assert mask.tolist() == [True, False, True]
    assert torch.equal(TokenPool(7)(x, ids).output, torch.stack((x[0, 1], x[1, 0], x[2, 0])))
    assert not TokenPool(6)(x, ids).mask.any()


def test_attention_is_the_probe_of_siglip():
    theirs = SiglipMultiheadAttentionPoolingHead(
        SiglipVisionConfig(hidden_size=12, num_attention_heads=3, intermediate_size=8)
    ).eval()
    ours = AttentionPool(12, 3).eval()
    attention = theirs.attention
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
        ours.weight.copy_(theirs.probe[0, 0])
        for part in ("weight", "bias"):
            joined = getattr(attention, f"in_proj_{part}")
            getattr(ours.attention.query, part).copy_(joined[:12])
            getattr(ours.attention.key_value, part).copy_(joined[12:])
            getattr(ours.attention.output, part).copy_(getattr(attention.out_proj, part))
    x = torch.randn(2, 5, 12)
    expected, _ = attention(theirs.probe.repeat(2, 1, 1), x, x)
    torch.testing.assert_close(ours(x).output, expected[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", [MeanPool(), FirstPool(), AttentionPool(4, 2)])
def test_an_absent_row_is_zero_and_passes_no_gradient(pool):
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.normal_()  # the output's bias alone is not 0 then
    x = torch.randn(3, 3, 4, requires_grad=True)
    output = pool(x, MASK).output
    assert not output[1].any()
    output.sum().backward()
    assert not x.grad[1].any()
    assert x.grad[0].any()


def test_last_is_the_last_that_counts():
    x = torch.randn(3, 3, 4)
    output, mask = LastPool()(x, MASK)
    assert torch.equal(output, torch.stack((x[0, 1], torch.zeros(4), x[2, 2])))
    assert mask.tolist() == [True, False, True]
    assert torch.equal(LastPool()(x).output, x[:, -1])
