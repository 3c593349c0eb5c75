"""A component without its weights: built on torch's meta device, for the checker and for costs."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

RANDOM = frozenset({"bernoulli_", "exponential_", "normal_", "random_", "trunc_normal_", "uniform_"})


class _NothingRandom(TorchFunctionMode):
    """Leaves out what fills tensors that have no memory: on the meta device it would import the whole of Dynamo."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in RANDOM:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_meta(cls: type, settings: Mapping[str, Any]) -> nn.Module:
    """An instance whose tensors have shapes but no memory; raises what the constructor raises."""
    with torch.device("meta"), _NothingRandom():
        module = cls(**settings)
    if not isinstance(module, nn.Module):
        raise TypeError(f"{cls.__name__} is not an nn.Module")
    stray = [
        name
        for name, t in itertools.chain(module.named_parameters(), module.named_buffers())
        if t.device.type != "meta"
    ]
    if stray:
        raise TypeError(f"`{stray[0]}` is not made on the default device; build tensors without naming a device")
    return module


class MetaProbe:
    """Tells the checker what a constructor objects to, and the shapes of its parameters."""

    def parameters(self, cls: type, settings: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by name; raises ValueError, TypeError or RuntimeError as the constructor does."""
        module = build_meta(cls, settings)
        return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
