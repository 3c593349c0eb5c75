import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from atinuke.plugins.loss_contrastive import ContrastiveLoss, SigmoidContrastiveLoss, SupervisedContrastiveLoss

EXACT = {"rtol": 1e-12, "atol": 1e-12}
TEXT = {"vocab_size": 40, "hidden_size": 12, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGE = {"hidden_size": 12, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL = {"image_size": 8, "patch_size": 4}
BOTH = [ContrastiveLoss, SigmoidContrastiveLoss]


def pairs(rows: int, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(rows)
    first, second = (F.normalize(torch.randn(rows, width, dtype=torch.float64), dim=-1) for _ in range(2))
    return first.requires_grad_(), second.requires_grad_()


def both_losses(theirs, ours):
    """The loss of a whole model of theirs, and ours of the vectors that it compares."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    given = {"input_ids": torch.randint(2, 39, (5, 6)), "pixel_values": torch.randn(5, 3, 8, 8)}
    with torch.no_grad():
        found = theirs.eval()(**given, return_loss=True)
        ours.log_scale.copy_(theirs.logit_scale.squeeze())
        if isinstance(ours, SigmoidContrastiveLoss):
            ours.offset.copy_(theirs.logit_bias.squeeze())
    return found.loss, ours(found.text_embeds, found.image_embeds)


def test_contrastive_is_clips():
    text = {**TEXT, "projection_dim": 8, "eos_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config={**IMAGE, **SMALL, "projection_dim": 8}, projection_dim=8)
    torch.testing.assert_close(*both_losses(CLIPModel(config), ContrastiveLoss()), rtol=1e-5, atol=1e-5)


def test_sigmoid_is_siglips():
    config = SiglipConfig(text_config=TEXT, vision_config={**IMAGE, **SMALL})
    torch.testing.assert_close(*both_losses(SiglipModel(config), SigmoidContrastiveLoss()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", BOTH)
def test_rows_that_are_hidden_are_as_if_they_were_not_there(loss):
    module, (first, second) = loss().double(), pairs(6)
    mask = torch.tensor([True, False, True, True, False, True])
    weights = list(module.parameters())
    masked = module(first, second, mask)
    alone = module(first[mask], second[mask])
    torch.testing.assert_close(masked, alone, **EXACT)
    for got, expected in zip(
        *(torch.autograd.grad(one, [first, second, *weights], retain_graph=True) for one in (masked, alone)),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, **EXACT)
    torch.testing.assert_close(module(first, second, torch.ones(6, dtype=torch.bool)), module(first, second), **EXACT)


@pytest.mark.parametrize("loss", BOTH)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_no_pair_no_loss(loss, dtype):
    module, (first, second) = loss().to(dtype), (one.detach().to(dtype).requires_grad_() for one in pairs(4))
    found = module(first, second, torch.zeros(4, dtype=torch.bool))
    found.backward()
    assert found.item() == 0
    assert all(not tensor.grad.any() for tensor in (first, second, *module.parameters()))


def test_temperature_starts_as_set_and_does_not_fall_below_a_hundredth():
    torch.testing.assert_close(1 / ContrastiveLoss(0.2).log_scale.exp().item(), 0.2)
    torch.testing.assert_close(1 / SigmoidContrastiveLoss(0.2).log_scale.exp().item(), 0.2)
    first, second = pairs(5)
    cold, coldest = ContrastiveLoss(0.01).double(), ContrastiveLoss(0.001).double()
    torch.testing.assert_close(coldest(first, second), cold(first, second), rtol=1e-6, atol=1e-6)


def khosla(vectors: torch.Tensor, labels: list[int], temperature: float) -> float:
    """Equation 2 of Khosla et al. (2020), row by row."""
    rows = [i for i, label in enumerate(labels) if label != -100]
    unit = {i: vectors[i] / vectors[i].norm() for i in rows}
    losses = []
    for i in rows:
        like = {j: torch.exp(unit[i] @ unit[j] / temperature) for j in rows if j != i}
        partners = [j for j in like if labels[j] == labels[i]]
        if partners:
            losses.append(-sum(torch.log(like[j] / sum(like.values())) for j in partners) / len(partners))
    return float(sum(losses) / len(losses))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([-100, 0, 1, 2]), min_size=2, max_size=8).filter(
        lambda labels: any(labels.count(label) > 1 for label in {*labels} - {-100})
    ),
    st.floats(0.05, 2.0),
)
def test_supervised_contrastive_is_the_papers(labels: list[int], temperature: float) -> None:
    torch.manual_seed(len(labels))
    vectors = 3 * torch.randn(len(labels), 5, dtype=torch.float64)
    found = SupervisedContrastiveLoss(temperature)(vectors, torch.tensor(labels))
    assert found.item() == pytest.approx(khosla(vectors, labels, temperature), rel=1e-9)


def test_nobody_of_the_same_label_no_loss() -> None:
    vectors = torch.randn(3, 4, requires_grad=True)
    found = SupervisedContrastiveLoss()(vectors, torch.tensor([0, 1, -100]))
    found.backward()
    assert found.item() == 0
    assert vectors.grad is not None
    assert not vectors.grad.any()


@pytest.mark.parametrize("loss", [*BOTH, SupervisedContrastiveLoss])
def test_mixed_precision_gives_nearly_the_same(loss) -> None:  # type: ignore[no-untyped-def]
    first, second = (one.detach().float().requires_grad_() for one in pairs(6))
    given = (torch.cat([first, second]), torch.arange(12) % 6)
    if loss is not SupervisedContrastiveLoss:
        given = (first, second, torch.tensor([True, True, False, True, True, True]))
    module = loss()
    plain = module(*given)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(*given)
    mixed.backward()
    assert mixed.item() == pytest.approx(plain.item(), rel=0.02)
    assert first.grad is not None
    assert first.grad.isfinite().all()
