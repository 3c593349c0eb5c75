"""The repeated blocks of a module: where activation checkpoints go."""

from collections.abc import Iterator
from typing import Any

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
    """Lets each repeated block, in place, keep only its inputs and compute the rest again in the backward pass.

    Chen et al. (2016). The gradients are the same, dropout included; a step takes longer and far less memory.
    """
    kinds: dict[type[nn.Module], type[nn.Module]] = {}
    for block in list(repeated_blocks(module)):
        kind = type(block)
        if kind not in kinds:
            kinds[kind] = _checkpointed(kind)
        block.__class__ = kinds[kind]


def _checkpointed(kind: Any) -> type[nn.Module]:
    """A subclass, one for all blocks of a kind: so that they still share what is compiled for one of them."""

    class Checkpointed(kind):  # type: ignore[misc]
        def forward(self, *inputs: Any, **named: Any) -> Any:
            return checkpoint(super().forward, *inputs, use_reentrant=False, **named)

    return Checkpointed
