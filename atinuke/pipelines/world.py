"""The processes that train together. One process is the special case: under `torchrun` the same code runs in many."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

PLACES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


@dataclass(frozen=True)
class World:
    """This process among `size` of them, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all processes, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return list(total.tolist())

    def any(self, fact: bool) -> bool:
        """Whether the fact holds in any process."""
        return self.sum(fact) != [0.0]

    @contextmanager
    def first(self) -> Iterator[bool]:
        """Runs a block in process 0, then in all others, which find what it made; yields whether this is process 0."""
        if self.rank > 0:
            dist.barrier()
        yield self.rank == 0
        if self.rank == 0 and self.size > 1:
            dist.barrier()

    def free_memory(self) -> int:
        """Bytes of memory that are free on the device."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        return int(psutil.virtual_memory().available)

    def share(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over all processes."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module, gradient_as_bucket_view=True)


@contextmanager
def joined() -> Iterator[World]:
    """The world that `torchrun` describes in the environment; without it, one process."""
    rank, size, local = (int(os.environ.get(key, default)) for key, default in PLACES.items())
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1:
        yield World(rank, size, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()
