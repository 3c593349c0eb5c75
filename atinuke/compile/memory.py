"""How weights lie in memory: for decoding without a compiler, the layout that this machine reads fastest."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ROUNDS = 5
CACHE_BYTES = 64 << 20  # written between timings, so that no weight is still in a cache


class _Weights(TorchFunctionMode):
    """Collects the matrices that rows are multiplied with, by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, nn.Parameter] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and isinstance(args[1], nn.Parameter):
            self.found[id(args[1])] = args[1]
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def lay_out(model: nn.Module) -> None:
    """Stores each matrix of a model that decodes on a CPU in the order, by rows or by columns, that is read faster.

    Values, shapes and names stay. Both orders are timed once for each shape. It is for `model.step` as it is: what
    `compile_step` makes streams weights in the order in which they come.
    """
    with _Weights() as weights:
        device = next(model.parameters()).device
        one = torch.zeros(1, 1, dtype=torch.int64, device=device)
        model.step(one, one[0], model.state(1, 1))  # type: ignore[operator]
    shapes: dict[torch.Size, list[nn.Parameter]] = {}
    for weight in weights.found.values():
        if weight.device.type == "cpu":
            shapes.setdefault(weight.shape, []).append(weight)
    for same in shapes.values():
        rows = [weight.data.contiguous() for weight in same]
        columns = [weight.t().contiguous().t() for weight in rows]
        best = rows if _seconds(rows) <= _seconds(columns) else columns
        for weight, data in zip(same, best, strict=True):
            weight.data = data


def _seconds(weights: list[Tensor]) -> float:
    """The time to multiply one row with each of the matrices, the best of some rounds."""
    row = torch.randn(1, 1, weights[0].shape[1], dtype=weights[0].dtype)
    flush = torch.empty(CACHE_BYTES // 4)
    best = float("inf")
    for _ in range(ROUNDS):
        flush.zero_()
        begin = perf_counter()
        for weight in weights:
            F.linear(row, weight)
        best = min(best, perf_counter() - begin)
    return best
