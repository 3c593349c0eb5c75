"""From a checked graph to the module that runs: an instance of the generated class."""

import hashlib
import linecache
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import nn

from atinuke.compile.source import Source, emit
from atinuke.compile.step import can_step, plan_steps
from atinuke.core.checked import CheckedGraph
from atinuke.core.cost import components, count_parameters
from atinuke.core.errors import fail

GENERATED = "atinuke_graph_"


def source_of(checked: CheckedGraph) -> Source:
    """The source of a graph, with its step form where it has one."""
    return emit(checked, plan_steps(checked) if can_step(checked) else None)


def build(
    checked: CheckedGraph, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> nn.Module:
    """A module with fresh weights; `torch.manual_seed` decides them.

    `model(**inputs)` returns a NamedTuple of the graph's outputs. Where the graph can be stepped,
    `model.state(batch, capacity)` makes an empty cache and
    `model.step(input_ids[batch, n], position[batch], state)` returns `(outputs, state)`. What does not depend on the
    text, such as an encoder, is worked out once by `model.prepare(**inputs)`, and each step takes what that gives:
    `model.step(input_ids, position, state, prepared)`.

    Raises:
        AtinukeError: the weights would not fit into this machine's memory.
    """
    dtype = dtype or torch.get_default_dtype()
    if torch.device(device or "cpu").type == "cpu":
        _require_memory(checked, dtype)
    cls = load(source_of(checked))
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device or "cpu"):
            module: nn.Module = cls()
            return module
    finally:
        torch.set_default_dtype(before)


def load(source: Source) -> Any:
    """The class that a source defines; tracebacks and debuggers show its lines."""
    digest = hashlib.sha256(source.text.encode()).hexdigest()[:12]
    name = f"{GENERATED}{source.name}_{digest}"
    if name not in sys.modules:
        file = f"<{name}>"
        module = ModuleType(name)
        module.__file__ = file
        linecache.cache[file] = (len(source.text), None, source.text.splitlines(keepends=True), file)
        exec(compile(source.text, file, "exec"), module.__dict__)  # noqa: S102 - our own print of a checked graph
        sys.modules[name] = module
    return getattr(sys.modules[name], source.name)


def parts(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The components of a module that was built, by their paths (`stack.0.H`)."""
    for name, child in model.named_children():
        if type(child).__module__.startswith(GENERATED) or isinstance(child, nn.ModuleList):
            yield from parts(child, f"{path}{name}.")
        else:
            yield f"{path}{name}", child


def exchange(model: nn.Module, path: str, component: nn.Module) -> None:
    """Puts another module in the place of a component."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, component)


def _require_memory(checked: CheckedGraph, dtype: torch.dtype) -> None:
    import psutil

    needed = count_parameters(node for _, _, node in components(checked.body)) * dtype.itemsize
    available = psutil.virtual_memory().available
    if needed > available:
        raise fail(
            f"graph `{checked.graph.name}` does not fit into memory",
            f"its weights need {needed / 1e9:,.1f} GB as {str(dtype).removeprefix('torch.')}",
            f"this machine has {available / 1e9:,.1f} GB free",
            fix="make the graph smaller, or choose a smaller dtype",
        )
