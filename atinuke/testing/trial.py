"""A component built for one drawn case: its weights, its inputs and its answers."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from atinuke.core.signature import FLOATS, Port, Shape, Signature
from atinuke.testing.draw import Case, Contract
from atinuke.testing.sizes import Sizes

Feeds = Mapping[str, tuple[Tensor, ...]]
Value = TypeVar("Value")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed; those outside go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def as_tuple(result: Any) -> tuple[Any, ...]:
    """What forward() gave, as a row of tensors."""
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def arguments(
    signature: Signature, feeds: Mapping[str, Sequence[Value]]
) -> tuple[list[Value | None], dict[str, Value]]:
    """Positional and keyword arguments of forward(); an optional port that is not fed is None."""
    positional: list[Value | None] = []
    keyword: dict[str, Value] = {}
    after_many = False
    for name, port in signature.inputs.items():
        wires = feeds.get(name, ())
        if port.many:
            positional += wires
            after_many = True
        elif not after_many:
            positional.append(wires[0] if wires else None)
        elif wires:
            keyword[name] = wires[0]
    return positional, keyword


def axes_named(shape: Shape, name: str, rank: int) -> list[int]:
    """The axes of a tensor of `rank` axes that a shape calls by a name."""
    extra = rank - len(shape.dims)
    behind_lead = shape.lead is not None
    return [i + extra if behind_lead and i >= shape.at else i for i, dim in enumerate(shape.dims) if dim.name == name]


@dataclass(frozen=True)
class Trial:
    """One case of one component. Everything random in it comes from the case's seed."""

    contract: Contract
    case: Case
    backend: str

    @property
    def signature(self) -> Signature:
        return self.contract.signature

    def shape(self, port: Port, sizes: Sizes | None = None) -> tuple[int, ...]:
        """The shape that a port promises in this case."""
        return (sizes or self.case.sizes).shape(port, self.case.settings)

    def feeding(self, *ports: str) -> "Trial":
        """The same with some optional ports fed."""
        given = {name: self.case.ports.get(name, 1) for name in self.signature.inputs}
        kept = {name: count for name, count in given.items() if name in self.case.ports or name in ports}
        return replace(self, case=replace(self.case, ports=kept))

    def build(self, dtype: torch.dtype = torch.float32, seed: int | None = None) -> nn.Module:
        """The component in evaluation mode. Every weight is moved by up to a half: a bias that is zero, a gain that is
        one and weights of size 0.02 hide much of what a component does."""
        with seeded(self.case.seed if seed is None else seed):
            module: nn.Module = self.contract.cls(**self.case.settings)
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.add_(torch.rand_like(parameter) - 0.5)
        return module.to(dtype).eval()

    def feeds(self, dtype: torch.dtype = torch.float32, sizes: Sizes | None = None, salt: int = 0) -> Feeds:
        """Inputs for the ports that are fed; another `salt` gives others of the same shapes.

        Whole numbers are below the smallest setting, so that they are indices into whatever a setting sizes. Some rows
        of a mask are all true, some all false and some mixed.
        """
        generator = torch.Generator().manual_seed(self.case.seed + 1000003 * salt)
        settings = [value for value in self.case.settings.values() if type(value) is int and value > 0]
        below = min(settings, default=2)

        def tensor(port: Port) -> Tensor:
            shape = self.shape(port, sizes)
            if "float" in port.kinds:
                return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            if port.kinds == {"bool"}:
                share = torch.randint(3, (*shape[:1], *[1] * (len(shape) - 1)), generator=generator) / 2
                return torch.rand(shape, generator=generator) < share
            named = getattr(torch, "int64" if "int64" in port.kinds else min(port.kinds))
            if port.kinds <= FLOATS:
                return torch.randn(shape, generator=generator, dtype=torch.float64).to(named)
            return torch.randint(below, shape, generator=generator).to(named)

        counts = self.case.ports.items()
        return {name: tuple(tensor(self.signature.inputs[name]) for _ in range(count)) for name, count in counts}

    def call(self, module: nn.Module, feeds: Feeds, seed: int | None = None) -> tuple[Any, ...]:
        """What forward() gives for copies of the feeds, with the case's randomness or another's."""
        copies = {name: tuple(wire.clone() for wire in wires) for name, wires in feeds.items()}
        positional, keyword = arguments(self.signature, copies)
        with seeded(self.case.seed if seed is None else seed):
            return as_tuple(module(*positional, **keyword))

    def answer(self, module: nn.Module, feeds: Feeds, seed: int | None = None) -> dict[str, Tensor]:
        """The outputs by name, without gradients."""
        with torch.no_grad():
            return dict(zip(self.signature.outputs, self.call(module, feeds, seed), strict=False))

    def gradients(self, outputs: Sequence[Any], wanted: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """Gradients of a sum of the outputs in which every element weighs differently; None where nothing depends."""
        parts = []
        for output in outputs:
            if isinstance(output, Tensor) and output.requires_grad:
                weights = torch.linspace(0.5, 1.5, output.numel(), dtype=torch.float64).view(output.shape)
                parts.append((output.double() * weights).sum())
        if not parts or not wanted:
            return (None,) * len(wanted)
        return torch.autograd.grad(torch.stack(parts).sum(), list(wanted), allow_unused=True)
