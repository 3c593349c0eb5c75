"""The programs of a model: what is compiled and called, each a module over a flat row of tensors.

A graph that writes a text has `prefill` (a piece of text of any length; the answer after one of its tokens), `decode`
(one token a row) and, where something else is read, `prepare` (an encoder, run once). Any other graph has `forward`.
Caches are `memory`: they go in and come out.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from atinuke.compile.module import build
from atinuke.compile.step import SEQUENCE_AXIS, StepPlan, can_step, plan_steps
from atinuke.core import dims
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.fit import Type
from atinuke.runtime.interface import BATCH, CAPACITY, Axes, Interface, Port, axes_of, work_out

SEQUENCE = "sequence"
FLOAT = "float"


@dataclass(frozen=True)
class Program:
    """A module whose forward takes the interface's inputs in order and gives its outputs as a tuple."""

    name: str
    module: nn.Module
    interface: Interface
    axes: Axes


class ForwardProgram(nn.Module):
    """forward() over a flat row of tensors, those of `names`."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(**dict(zip(self.names, tensors, strict=True))))


class PrepareProgram(nn.Module):
    """prepare() over a flat row of tensors, those of `names`."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.prepare(**dict(zip(self.names, tensors, strict=True))))  # type: ignore[operator]


class StepProgram(nn.Module):
    """step() over a flat row: text, position, perhaps `last`, what `prepare` gave, state. The state is copied, because
    exporters want functions, while step() may write into what it is given."""

    def __init__(self, model: nn.Module, picks: bool, prepared: int) -> None:
        super().__init__()
        self.model = model
        self.picks = picks
        self.prepared = prepared

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        fresh = 2 + self.picks + self.prepared
        outputs, state = self.step(*tensors[:fresh], state=tuple(tensor.clone() for tensor in tensors[fresh:]))
        return (*outputs, *state)

    def step(
        self, text: Tensor, position: Tensor, *rest: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Any, tuple[Tensor, ...]]:
        """The outputs, and the state that was written into."""
        last, prepared = (rest[0], rest[1:]) if self.picks else (None, rest)
        more = (prepared,) if prepared else ()
        outputs, state = self.model.step(text, position, state, *more, last=last)  # type: ignore[operator]
        return outputs, state


def programs(
    checked: CheckedGraph, model: nn.Module, step: bool = True, without: Collection[str] = ()
) -> dict[str, Program]:
    """The programs of a model that was built from `checked`, in the order in which they are called; where it has a step
    form, those of that, unless `step` is false. Optional inputs `without` are left out, the others are taken.

    Raises:
        AtinukeError: there is no such optional input.
    """
    graph = checked.graph
    for name in without:
        if name not in graph.inputs or not graph.inputs[name].optional:
            there = [name for name, given in graph.inputs.items() if given.optional]
            raise fail(f"graph `{graph.name}` has no optional input `{name}`", f"it has {', '.join(there) or 'none'}")
    axes = {name: (axis.low, axis.high) for name, axis in graph.axes.items()}
    inputs = {name: port(name, given) for name, given in checked.body.inputs.items() if name not in without}
    model = model.eval()
    if step and can_step(checked):
        return {program.name: program for program in _step_programs(checked, model, axes, inputs)}
    outputs = tuple(port(name, given) for name, given in checked.body.outputs.items())
    interface = Interface(tuple(inputs.values()), outputs, {})
    return {"forward": Program("forward", ForwardProgram(model, list(inputs)), interface, _used(interface, axes))}


def port(name: str, given: Type) -> Port:
    """What a wire carries, as a program's port; the model's own float is float32."""
    sizes = tuple(int(size) if size.is_Integer else dims.show(size) for size in given.shape)
    return Port(name, "float32" if given.dtype == FLOAT else given.dtype, sizes)


def _step_programs(
    checked: CheckedGraph, model: nn.Module, axes: Axes, inputs: Mapping[str, Port]
) -> Iterable[Program]:
    plan = plan_steps(checked)
    (text,) = plan.inputs
    if inputs[text].shape != (BATCH, SEQUENCE) or CAPACITY in axes:
        raise fail(
            f"the step form of `{checked.graph.name}` cannot be compiled",
            f"its text is {inputs[text]}",
            fix=f"let it be [{BATCH}, {SEQUENCE}], and call no axis `{CAPACITY}`",
        )
    axes = {**axes, CAPACITY: (1, axes[SEQUENCE][1])}
    meta = build(checked, device="meta").eval()
    memory_in, memory_out = _memory(checked, meta)
    prepared, found = _prepared(checked, meta, plan, inputs, axes)
    if prepared:
        read = [inputs[name] for name in plan.given if name in inputs]
        interface = Interface(tuple(read), prepared, {})
        module = PrepareProgram(model, [given.name for given in read])
        yield Program("prepare", module, interface, _used(interface, axes))
    axes = {**axes, **found}
    outputs = tuple(_at_one(port(name, checked.body.outputs[name])) for name in plan.outputs)
    memory = {old.name: new.name for old, new in zip(memory_in, memory_out, strict=True)}
    place = Port("position", "int64", (BATCH,))
    for name, picks in (("prefill", True), ("decode", False)):
        given = Port(text, inputs[text].dtype, (BATCH, SEQUENCE if picks else 1))
        last = (Port("last", "int64", (BATCH,)),) if picks else ()
        interface = Interface((given, place, *last, *prepared, *memory_in), (*outputs, *memory_out), memory)
        module_ = StepProgram(model, picks, len(prepared))
        yield Program(name, module_, interface, _used(interface, axes))


def _at_one(given: Port) -> Port:
    """An answer for every position as one for a single position."""
    return replace(given, shape=(*given.shape[:SEQUENCE_AXIS], 1, *given.shape[SEQUENCE_AXIS + 1 :]))


def _used(interface: Interface, axes: Axes) -> Axes:
    """The axes that a program's inputs have."""
    used = {name for given in interface.inputs for size in given.shape for name in axes_of(size)}
    return {name: axis for name, axis in axes.items() if name in used}


def _memory(checked: CheckedGraph, meta: Any) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """The caches as they go in and come out. Where every cache is a pair of keys and values, they have the names that
    Hugging Face's exports have."""
    pairs = zip(meta.state(2, 3), meta.state(5, 7), strict=True)
    axes = {(2, 5): BATCH, (3, 7): CAPACITY}
    shapes = [
        tuple(axes.get(pair, pair[0]) for pair in zip(small.shape, large.shape, strict=True)) for small, large in pairs
    ]
    dtypes = [str(tensor.dtype).removeprefix("torch.") for tensor in meta.state(2, 3)]
    paired = len(shapes) % 2 == 0 and all(len(shape) == 4 for shape in shapes)
    names = [f"{i // 2}.{('key', 'value')[i % 2]}" if paired else str(i) for i in range(len(shapes))]
    old, new = (
        tuple(Port(f"{word}.{name}", dtype, shape) for name, dtype, shape in zip(names, dtypes, shapes, strict=True))
        for word in ("past_key_values", "present")
    )
    return old, new


def _prepared(
    checked: CheckedGraph, meta: Any, plan: StepPlan, inputs: Mapping[str, Port], axes: Axes
) -> tuple[tuple[Port, ...], dict[str, tuple[int, int]]]:
    """What `prepare` gives, and the axes that only these tensors have. Components do not say the shapes, so they are
    seen at several sizes: an axis that is as long as one of the graph's is that one; another that varies is new."""
    if not plan.width:
        return (), {}
    read = [inputs[name] for name in plan.given if name in inputs]
    used = {name for given in read for size in given.shape for name in axes_of(size)}
    names = [name for name in axes if name in used]
    points = [dict(zip(names, sizes, strict=True)) for sizes in _points([axes[name] for name in names])]
    seen = [_shapes(meta, read, point) for point in points]
    new: dict[str, tuple[int, int]] = {}
    found: list[Port] = []
    for i, (dtype, _) in enumerate(seen[0]):
        shape: list[int | str] = []
        for axis, sizes in enumerate(zip(*(shapes[i][1] for shapes in seen), strict=True)):
            same = [name for name in names if all(size == p[name] for size, p in zip(sizes, points, strict=True))]
            if len({*sizes}) == 1 and not same:
                shape.append(sizes[0])
            elif same:
                shape.append(same[0])
            else:
                name = f"prepared_{i}_{axis}"
                known = next((n for n, a in new.items() if a == (min(sizes), max(sizes))), name)
                new[known] = (min(sizes), max(sizes))
                shape.append(known)
        found.append(Port(f"prepared.{i}", dtype, tuple(shape)))
    return tuple(found), new


def _points(ranges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """All axes low, all high, and each one high alone."""
    lows = [low for low, _ in ranges]
    alone = [[high if i == k else low for i, (low, high) in enumerate(ranges)] for k in range(len(ranges))]
    return [lows, [high for _, high in ranges], *alone]


def _shapes(meta: Any, read: Sequence[Port], sizes: Mapping[str, int]) -> list[tuple[str, tuple[int, ...]]]:
    feeds = {
        given.name: torch.empty(
            [size if isinstance(size, int) else work_out(size, sizes) for size in given.shape],
            dtype=getattr(torch, given.dtype),
            device="meta",
        )
        for given in read
    }
    with torch.no_grad():
        return [(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for t in meta.prepare(**feeds)]
