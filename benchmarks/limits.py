"""What this machine can do at most, measured in the run that quotes it: matrix products and reading memory."""

import time

import torch
from torch import Tensor


def gemm(dtype: torch.dtype = torch.float32, size: int = 1024, rounds: int = 20) -> float:
    """FLOP/s of a square product, the best of some rounds."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def memory(megabytes: int = 512, rounds: int = 10) -> float:
    """Bytes a second read from memory, the best of some rounds."""
    data = torch.ones(megabytes << 18)
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        data.sum()
        best = min(best, time.perf_counter() - begin)
    return data.numel() * 4 / best


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
