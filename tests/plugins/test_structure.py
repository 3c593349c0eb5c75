import pytest
import torch

from atinuke.plugins.structure import Add, Affine, Concat, Dropout, Identity, Mean


def test_add_sums_any_number():
    terms = [torch.randn(2, 3) for _ in range(4)]
    assert torch.equal(Add()(terms[0]), terms[0])
    torch.testing.assert_close(Add()(*terms), torch.stack(terms).sum(0))


@pytest.mark.parametrize("rest", [(), (4,), (4, 6)])
def test_concat_joins_behind_the_batch(rest):
    first, second = torch.randn(2, 3, *rest), torch.randn(2, 5, *rest)
    joined = Concat()(first, second)
    assert torch.equal(joined[:, :3], first)
    assert torch.equal(joined[:, 3:], second)


def test_dropout_keeps_the_mean_while_training_and_everything_after():
    torch.manual_seed(0)
    dropout, x = Dropout(0.25), torch.ones(100, 1000)
    dropped = dropout(x)
    assert abs((dropped == 0).float().mean().item() - 0.25) < 0.01
    assert abs(dropped.mean().item() - 1) < 0.01
    assert torch.equal(dropout.eval()(x), x)


def test_mean_is_of_all_values():
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(Mean()(x), x.sum() / 24)
    assert Mean()(x).shape == ()


def test_identity():
    x = torch.randn(2, 3)
    assert Identity()(x) is x


def test_affine():
    x = torch.randn(2, 3)
    torch.testing.assert_close(Affine(0.5, -2.0)(x), x / 2 - 2)
