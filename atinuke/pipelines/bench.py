"""Eager against compiled on this machine: tokens a second and the largest difference, in interleaved rounds."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atinuke.compile.inductor import compile_blocks, compile_step
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.pipelines.feed_text import require_text

Way = Callable[[], Tensor]


@dataclass(frozen=True)
class Figure:
    """One line of the table. `difference` is the logits' largest from eager ones, relative to the largest logit."""

    task: str
    way: str
    tokens_per_second: float
    ratio: float
    difference: float
    first_call: float


@torch.inference_mode()
def bench(checked: CheckedGraph, model: nn.Module, batch: int, sequence: int, rounds: int) -> Iterator[Figure]:
    """Forward over `[batch, sequence]` tokens, then decoding `sequence` tokens one by one for one row.

    `model` is built from `checked`, and is put into evaluation mode. `first_call` is in seconds: what compiling costs.

    Raises:
        AtinukeError: the graph does not read tokens and give logits, or the sizes are outside its axes.
    """
    model.eval()
    ids = torch.randint(
        0, _tokens(checked, batch, sequence), (batch, sequence), generator=torch.Generator().manual_seed(0)
    )
    compiled = copy.deepcopy(model)
    compile_blocks(compiled)
    ways = {"eager": lambda: model(ids).logits, "compiled": lambda: compiled(ids).logits}
    yield from _compare("forward", ways, ids.numel(), rounds)
    if hasattr(model, "step"):
        row = ids[:1]
        steps: dict[str, Any] = {"eager": model.step, "compiled": compile_step(model)}
        decoding = {way: _decoding(model, step, row) for way, step in steps.items()}
        yield from _compare("decode", decoding, sequence, rounds)


def _tokens(checked: CheckedGraph, batch: int, sequence: int) -> int:
    """The size of the vocabulary."""
    graph = checked.graph
    require_text(checked)
    for name, size in zip(graph.inputs["input_ids"].shape, (batch, sequence), strict=True):
        axis = graph.axes.get(name)
        if axis and not axis.low <= size <= axis.high:
            raise fail(f"axis `{name}` must be {axis}", f"got {size}", fix="choose a size in its range")
    return int(checked.body.outputs["logits"].shape[-1])


def _decoding(model: Any, step: Callable[..., Any], row: Tensor) -> Way:
    def decode() -> Tensor:
        state = model.state(1, row.shape[1])
        logits = []
        for at in range(row.shape[1]):
            output, state = step(row[:, at : at + 1], torch.tensor([at]), state)
            logits.append(output.logits)
        return torch.cat(logits, dim=1)

    return decode


def _compare(task: str, ways: dict[str, Way], tokens: int, rounds: int) -> Iterator[Figure]:
    """The median over interleaved rounds; a ratio is the median of those within a round."""
    first: dict[str, float] = {}
    logits: dict[str, Tensor] = {}
    for way, run in ways.items():
        begin = time.perf_counter()
        logits[way] = run()
        first[way] = time.perf_counter() - begin
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            begin = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - begin)
    base = logits["eager"]
    for way in ways:
        yield Figure(
            task,
            way,
            tokens / statistics.median(seconds[way]),
            statistics.median(e / s for e, s in zip(seconds["eager"], seconds[way], strict=True)),
            ((logits[way] - base).abs().max() / base.abs().max()).item(),
            first[way],
        )
