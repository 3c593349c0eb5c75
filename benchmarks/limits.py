"""What this machine can do at most, measured in the run that quotes it: matrix products and reading memory."""

import torch
from torch import Tensor

from atinuke.pipelines.peak import gemm_peak
from atinuke.runtime.limits import measure


def gemm(dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of a square product, the best of some."""
    return gemm_peak(dtype, torch.device("cpu"))


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
