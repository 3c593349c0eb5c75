"""When two answers count as the same."""

import pytest
import torch

from atinuke.testing.compare import TOLERANCES, require_same
from atinuke.testing.law import ViolationError


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_tolerance_is_of_the_size_of_the_largest_answer(dtype):
    answer = torch.tensor([0.5, 64.0], dtype=torch.float64)
    near, far = (answer + torch.tensor([share * TOLERANCES[dtype] * 64, 0]) for share in (0.5, 2))
    require_same("it", answer.to(dtype), near.to(dtype))
    with pytest.raises(ViolationError, match=r"it at \[0\]: 0.5"):
        require_same("it", answer.to(dtype), far.to(dtype))


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (torch.zeros(2), torch.zeros(3)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(2), torch.tensor([0.0, float("nan")])),
        (torch.tensor([float("inf")]), torch.tensor([float("-inf")])),
        (torch.tensor([float("inf")]), torch.tensor([1.0])),
        (torch.tensor([True]), torch.tensor([False])),
        (torch.tensor(3), torch.tensor(4)),
    ],
)
def test_not_the_same(expected, got):
    with pytest.raises(ViolationError):
        require_same("it", expected, got)


def test_the_same():
    for tensor in (torch.tensor([float("nan"), float("inf")]), torch.zeros(0, 2), torch.tensor(True)):
        require_same("it", tensor, tensor.clone(), exact=True)


def test_exact_is_to_the_bit():
    with pytest.raises(ViolationError):
        require_same("it", torch.tensor(1.0), torch.tensor(1.0 + 2**-23), exact=True)
