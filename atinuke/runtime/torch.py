"""What runs programs with torch on a CPU: arrays are tensors over the same memory, and caches are written in place."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atinuke.core.errors import fail
from atinuke.runtime.interface import Array, Axes, Interface
from atinuke.runtime.runner import Memory, Runner, not_here

STORED = {"bf16": np.dtype(np.uint16), "fp16": np.dtype(np.float16)}
"""How numpy holds the caches of a half precision; it does not know bfloat16, so of that the bits."""


class TorchRunner(Runner):
    """Programs that write into the caches they are given, which are in the precision of the build. Those that `begin`
    gives are never copied."""

    packages = ("torch",)
    extra = "torch"

    def __init__(
        self,
        folder: Path,
        programs: Mapping[str, Interface],
        axes: Axes,
        precision: str,
        threads: int | None = None,
    ) -> None:
        super().__init__(folder, programs, axes, precision, threads)
        try:
            import torch
        except ImportError:
            raise not_here("torch is not installed", fix="pip install 'atinuke[torch]'") from None
        if threads:
            torch.set_num_threads(threads)
        self.torch: Any = torch

    @abstractmethod
    def invoke(self, program: str, inputs: list[Any]) -> tuple[Any, ...]:
        """The answers of one call, tensors; the caches, the last of the inputs, are changed."""

    def begin(self, program: str, sizes: Mapping[str, int]) -> Memory:
        memory = super().begin(program, sizes)
        return {name: array.astype(self._stored(array.dtype)) for name, array in memory.items()}

    def call(self, program: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        memory = self.programs[program].memory
        caches = {name: self._narrow(feeds[name]) for name in memory}
        outputs = self._answers(program, feeds, caches)
        return outputs | {memory[name]: self._wide(cache).numpy() for name, cache in caches.items()}

    def step(self, program: str, feeds: Mapping[str, Array], memory: Memory) -> dict[str, Array]:
        interface = self.programs[program]
        shapes = {}
        for port in interface.inputs:
            if port.name in interface.memory and port.name in memory:
                cache, dtype = memory[port.name], self._stored(np.dtype(port.dtype))
                if cache.dtype != dtype or not (cache.flags.c_contiguous and cache.flags.writeable):
                    raise fail(f"`{port.name}` is no cache of this model", fix="take the caches that `begin` gives")
                shapes[port.name] = np.broadcast_to(np.zeros((), port.dtype), cache.shape)
        interface.check({**feeds, **shapes}, self.axes)
        return self._answers(program, feeds, {name: self._bound(memory[name]) for name in interface.memory})

    def _answers(self, program: str, feeds: Mapping[str, Array], caches: Mapping[str, Any]) -> dict[str, Array]:
        interface = self.programs[program]
        inputs = [
            caches[port.name] if port.name in caches else self._tensor(feeds[port.name]) for port in interface.inputs
        ]
        names = [port.name for port in interface.outputs if port.name not in interface.memory.values()]
        return {name: answer.numpy() for name, answer in zip(names, self.invoke(program, inputs), strict=True)}

    def _tensor(self, array: Array) -> Any:
        return self.torch.from_numpy(np.require(array, requirements=("C", "W")))

    def _stored(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return STORED.get(self.precision, dtype) if dtype == np.float32 else dtype

    def _bound(self, cache: Array) -> Any:
        """A cache from `begin` as a tensor over the same memory."""
        tensor = self.torch.from_numpy(cache)
        return tensor.view(self.torch.bfloat16) if cache.dtype == np.uint16 else tensor

    def _narrow(self, cache: Array) -> Any:
        """A copy of a cache, as the program wants it."""
        tensor = self.torch.from_numpy(np.array(cache, order="C"))
        halves = {"bf16": self.torch.bfloat16, "fp16": self.torch.float16}
        return tensor.to(halves[self.precision]) if self.precision in halves and cache.dtype == np.float32 else tensor

    def _wide(self, cache: Any) -> Any:
        return cache.float() if cache.is_floating_point() else cache
