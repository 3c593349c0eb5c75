"""The matrix-product speed of this machine, measured: what model FLOPs utilisation (MFU) is a share of."""

import time

import torch

SIZES = {"cpu": 1024, "cuda": 8192}


def gemm_peak(dtype: torch.dtype, device: torch.device, seconds: float = 0.5) -> float:
    """The best rate of a square matrix product, in FLOP/s, found in about `seconds`."""
    size = SIZES[device.type]
    left = torch.randn(size, size, device=device, generator=torch.Generator(device).manual_seed(0)).to(dtype)
    product = torch.empty_like(left)
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        torch.mm(left, left, out=product)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best
