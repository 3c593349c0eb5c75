"""Masks of what counts in each row, for components that change the length of a sequence.

Such a component takes an optional mask and gives one of its output. What the mask hides is set to zero before anything
looks at it, as if it stood beyond the end, so padding has no influence. An output counts where the last input that it
needs counts: for rows padded on the right that is every output which the row alone would have.
"""

import torch
from torch import Tensor


def require_length(length: int, least: int, axis: str) -> None:
    """Raises ValueError where an axis is too short to give any output."""
    if length < least:
        raise ValueError(f"at least {least} {axis} are needed, but there are {length}")


def by_place(x: Tensor) -> Tensor:
    """`x[batch, channels, length]`, as convolutions give it, as `[batch, length, channels]`.

    A copy: what is computed element by element from a mere view cannot be exported for a length that may be 1.
    """
    return x.transpose(1, 2).contiguous()


def full_mask(x: Tensor) -> Tensor:
    """The mask `[batch, length]` of `x[batch, length, ...]` in which everything counts."""
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
