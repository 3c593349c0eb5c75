"""When two answers count as the same."""

import torch
from torch import Tensor

from atinuke.testing.law import ViolationError

# Inputs and weights have size 1, and so has what is rounded: the tolerance is absolute, times the largest answer where
# that one is above 1.
TOLERANCES = {
    torch.float64: 1e-9,  # sums of some dozen terms round at 1e-15: what is above this depends on what it should not
    torch.float32: 2e-5,  # the same sums in another order, or another library's exp: 3e-6 seen through ONNX Runtime
    torch.float16: 3e-3,  # one rounding is 5e-4, and a few add up: below 6e-4 seen
    torch.bfloat16: 2e-2,  # one rounding is 4e-3: below 3e-3 seen
}


def require_same(what: str, expected: Tensor, got: Tensor, exact: bool = False) -> None:
    """Raises `ViolationError` unless two tensors are the same: within the tolerance of their dtype, or to the bit.

    Where both are not a number they are the same; law `dtype` is the one that asks for numbers.
    """
    if expected.shape != got.shape:
        raise ViolationError(f"{what} of shape {list(expected.shape)}", f"shape {list(got.shape)}")
    if expected.dtype != got.dtype:
        raise ViolationError(f"{what} of {expected.dtype}", str(got.dtype))
    wanted, found = expected.detach().to(torch.float64), got.detach().to(torch.float64)
    same = (wanted == found) | (wanted.isnan() & found.isnan())
    tolerance = 0.0
    if not exact and expected.is_floating_point() and expected.numel():
        tolerance = TOLERANCES[expected.dtype] * max(1.0, wanted.nan_to_num(0, 0, 0).abs().max().item())
        same |= (wanted - found).abs() <= tolerance
    if not bool(same.all()):
        place = tuple((~same).nonzero()[0].tolist())
        at = f" at {list(place)}" if place else ""
        within = f" (within {tolerance:.2g})" if tolerance else ""
        raise ViolationError(f"{what}{at}: {wanted[place].item():.9g}{within}", f"{found[place].item():.9g}")
