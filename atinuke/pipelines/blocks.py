"""The repeated blocks of a module: where activation checkpoints go."""

from collections.abc import Iterator
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def repeated_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of every outermost `nn.ModuleList`."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from repeated_blocks(child)


def checkpoint_blocks(module: nn.Module) -> None:
    """Lets each repeated block keep only its inputs and compute the rest again in the backward pass.

    Chen et al. (2016). The gradients are the same, dropout included; a step takes longer and far less memory.
    """
    for block in repeated_blocks(module):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
