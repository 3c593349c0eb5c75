"""What this machine can do at most, measured in the run that quotes it: matrix products and reading memory."""

import time

import torch
from torch import Tensor

from atinuke.pipelines.peak import gemm_peak
from atinuke.runtime.limits import measure


def gemm(dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of a square product, the best of some."""
    return gemm_peak(dtype, torch.device("cpu"))


def gemm_int8(size: int = 1024, rounds: int = 20) -> float:
    """Operations a second of a square product of whole numbers of 8 bits, the best of some rounds."""
    a, b = (torch.randint(-127, 128, (size, size), dtype=torch.int8) for _ in range(2))
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        torch._int_mm(a, b)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def packed(size: int = 1024, rounds: int = 20) -> float:
    """FLOP/s of a square product in float32 with oneDNN's packed weights, which some machines do twice as fast as
    torch's own library; the best of some rounds."""
    a, b = torch.randn(size, size), torch.ops.mkldnn._reorder_linear_weight(torch.randn(size, size))
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def memory() -> float:
    """Bytes a second read from memory, the best of some rounds."""
    return measure(torch.get_num_threads()).memory


def said() -> str:
    """The limits in one line; bfloat16 only where it is known to the machine's matrix units or not, as measured."""
    fp32, bf16 = gemm(torch.float32), gemm(torch.bfloat16)
    return (
        f"limits of {torch.get_num_threads()} thread(s): GEMM fp32 {fp32 / 1e9:,.0f}, bf16 {bf16 / 1e9:,.0f} GFLOP/s; "
        f"memory {memory() / 1e9:.1f} GB/s"
    )


def median_ratio(base: list[float], other: list[float]) -> float:
    """How many times faster `other` is than `base`: the median of the ratios within a round."""
    return float(Tensor([a / b for a, b in zip(base, other, strict=True)]).median())
