"""The ways to call a component, each as a module over a flat row of tensors, which is what exporters take."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from atinuke.compile.meta import build_meta
from atinuke.core.signature import Port
from atinuke.testing.sizes import Sizes, first_possible, open_names
from atinuke.testing.steps import StepCall
from atinuke.testing.trial import Trial, arguments, as_tuple

DERIVED = ""  # the name of an axis whose size is worked out from free names, such as 2*frames


@dataclass(frozen=True)
class Form:
    """A way to call a component. `axes` names the free axes of each tensor; `ranges` bounds some of the names;
    `tensors(k)` draws inputs at the k-th sizes of the case."""

    title: str
    module: nn.Module
    axes: tuple[Mapping[int, str], ...]
    ranges: Mapping[str, tuple[int, int | None]]
    tensors: Callable[[int], tuple[Tensor, ...]]


class ForwardForm(nn.Module):
    """forward() over a flat row of tensors; arguments are given as places in the row."""

    def __init__(self, component: nn.Module, positional: list[int | None], keyword: dict[str, int]) -> None:
        super().__init__()
        self.component = component
        self.positional = positional
        self.keyword = keyword

    def forward(self, *tensors: Tensor) -> tuple[Any, ...]:
        positional = [None if place is None else tensors[place] for place in self.positional]
        return as_tuple(self.component(*positional, **{name: tensors[place] for name, place in self.keyword.items()}))


class StepForm(nn.Module):
    """prepare() and step() over a flat row of tensors: ports, position, state. The state is copied, because exporters
    want functions while step() may write into what it is given."""

    def __init__(self, component: nn.Module, call: StepCall) -> None:
        super().__init__()
        self.component = component
        self.call = call

    def forward(self, *tensors: Tensor) -> tuple[Any, ...]:
        count = len(self.call.ports)
        feeds = dict(zip(self.call.ports, tensors[:count], strict=True))
        state = tuple(tensor.clone() for tensor in tensors[count + 1 :])
        outputs, state = self.call(
            self.component, feeds, tensors[count], state, self.call.prepare(self.component, feeds)
        )
        return (*outputs, *state)


def forward_forms(trial: Trial) -> Iterator[Form]:
    """forward() with every optional port and, where there are any, with none."""
    return map(_forward_form, _with_and_without(trial))


def step_forms(trial: Trial) -> Iterator[Form]:
    """step() of several tokens and of one, with every optional port and, where there are any, with none.

    Raises:
        NotApplicableError: the component cannot be stepped with these settings.
    """
    for one in _with_and_without(trial):
        yield _step_form(one, several=True)
        yield _step_form(one, several=False)


def _with_and_without(trial: Trial) -> Iterator[Trial]:
    return (replace(trial, case=case) for case in trial.case.with_and_without(trial.signature))


def _forward_form(trial: Trial) -> Form:
    ports = trial.case.ports
    places: dict[str, list[int]] = {}
    for name, count in ports.items():
        start = sum(map(len, places.values()))
        places[name] = [*range(start, start + count)]
    module = ForwardForm(trial.build(), *arguments(trial.signature, places)).eval()
    axes = tuple(_free(trial, trial.signature.inputs[name]) for name, count in ports.items() for _ in range(count))

    def tensors(k: int) -> tuple[Tensor, ...]:
        return tuple(wire for wires in trial.feeds(sizes=_sizes(trial, k), salt=k).values() for wire in wires)

    return Form(f"forward({', '.join(ports)})", module, axes, _ranges(trial), tensors)


def _step_form(trial: Trial, several: bool) -> Form:
    call = StepCall.of(trial)
    component = trial.build()
    names = call.ports
    axes = [*(_free(trial, trial.signature.inputs[name]) for name in names), {0: "batch"}, *_state_axes(trial, call)]
    ranges = _ranges(trial)
    longest = ranges["sequence"][1]

    def tensors(k: int) -> tuple[Tensor, ...]:
        sizes = _sizes(trial, k)
        sizes = sizes.but(sequence=max(2, sizes.names["sequence"]) if several else 1)
        feeds = trial.feeds(sizes=sizes, salt=k)
        wires = [feeds[name][0] for name in names]
        batch, new = wires[0].shape[:2]
        capacity = new + 11 + k  # equal to no other axis
        generator = torch.Generator().manual_seed(trial.case.seed + k)
        last = min(capacity, longest or capacity) - new
        position = torch.randint(last + 1, (batch,), generator=generator)
        state = [
            torch.randn(old.shape, generator=generator).to(old.dtype) if old.is_floating_point() else old
            for old in call.state(component, batch, capacity)
        ]
        return (*wires, position, *state)

    title = f"step({', '.join(names)}) of {'several tokens' if several else 'one token'}"
    if several:
        ranges = {**ranges, "sequence": (2, longest)}
    else:
        axes = [{axis: name for axis, name in of.items() if name != "sequence"} for of in axes]
    return Form(title, StepForm(component, call).eval(), tuple(axes), ranges, tensors)


def _state_axes(trial: Trial, call: StepCall) -> list[dict[int, str]]:
    """Which axes of each state tensor are `batch` and `capacity`: found by asking for two states without memory."""
    module = build_meta(trial.contract.cls, trial.case.settings)
    names = {(2, 5): "batch", (3, 7): "capacity"}
    pairs = zip(call.state(module, 2, 3), call.state(module, 5, 7), strict=True)
    sizes = [list(zip(small.shape, large.shape, strict=True)) for small, large in pairs]
    return [{axis: names[pair] for axis, pair in enumerate(of) if pair in names} for of in sizes]


def _free(trial: Trial, port: Port) -> dict[int, str]:
    """The free axes of a port in this case."""
    shape = port.shape
    rank = len(trial.case.sizes.leads[shape.lead]) if shape.lead else 0
    found = {shape.at + i: f"{shape.lead}_{i}" for i in range(rank)}
    for i, dim in enumerate(shape.dims):
        if open_names(dim):
            found[i + rank if shape.lead and i >= shape.at else i] = dim.name or DERIVED
    return found


def _ranges(trial: Trial) -> dict[str, tuple[int, int | None]]:
    """The sizes that each free name may have: from the first that leaves no port empty up to its limit."""
    sizes, settings, signature = trial.case.sizes, trial.case.settings, trial.signature
    limits = {name: settings[setting] for name, setting in signature.limits.items()}
    return {name: (first_possible(name, sizes, signature, settings), limits.get(name)) for name in sizes.names}


def _sizes(trial: Trial, k: int) -> Sizes:
    return (trial.case.sizes, *trial.case.others)[k]
