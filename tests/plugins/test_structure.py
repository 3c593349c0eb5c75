import pytest
import torch

from atinuke.plugins.structure import Add, Affine, Concat, Identity, Mean


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
