"""A component without its weights: built on torch's meta device, for the checker and for costs."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from atinuke.compile.lora import LoRALinear
from atinuke.core.checked import CheckedNode
from atinuke.core.lora import LinearMap

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


def build_node(node: CheckedNode) -> nn.Module:
    """The component of a node with its low-rank updates, as `build_meta` builds it."""
    assert node.cls is not None
    module = build_meta(node.cls, node.settings)
    for name, lora in node.lora.items():
        base = module.get_submodule(name)
        assert isinstance(base, nn.Linear)
        with _NothingRandom():
            module.set_submodule(name, LoRALinear(base, lora.rank, lora.alpha, lora.parts, lora.dropout))
    return module


class MetaProbe:
    """Tells the checker what a constructor objects to, and the shapes of its parameters."""

    def parameters(self, cls: type, settings: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by name; raises ValueError, TypeError or RuntimeError as the constructor does."""
        module = build_meta(cls, settings)
        return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}

    def linear_maps(self, cls: type, settings: Mapping[str, Any]) -> dict[str, LinearMap]:
        """The modules inside a component that are plain linear maps, by name. A map that is several in one says so in
        its attribute `parts`, a mapping of names to outputs."""
        return {
            name: LinearMap(module.in_features, module.out_features, dict(getattr(module, "parts", {})))
            for name, module in build_meta(cls, settings).named_modules()
            if name and isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
        }
