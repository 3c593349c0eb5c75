"""A GPU that is not there: the driver's functions over the host's memory, and a TensorRT whose engines are ONNX files.
It shows that a runner passes pointers, shapes and caches on as it should; no GPU has seen it."""

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from atinuke.runtime import cuda
from atinuke.runtime.onnx import SLOW
from atinuke.runtime.tensorrt_library import library

VERSION = "1.7.1"


class HostDriver:
    """What `atinuke.runtime.cuda` calls of the CUDA driver. `memory` has every allocation by its address."""

    def __init__(self, capability: int = 86, pools: int = 1) -> None:
        self.attributes = {75: capability // 10, 76: capability % 10, 115: pools}
        self.memory: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        assert name in ("cuInit", "cuCtxSetCurrent", "cuMemPoolSetAttribute", "cuStreamSynchronize"), name
        return lambda *_: 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = ordinal
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, device: Any) -> int:
        value._obj.value = self.attributes[which]
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        context._obj.value = 1
        return 0

    def cuDeviceGetDefaultMemPool(self, pool: Any, device: Any) -> int:
        pool._obj.value = 2
        return 0

    def cuStreamCreate(self, stream: Any, flags: int) -> int:
        stream._obj.value = 7
        return 0

    def cuMemAllocAsync(self, pointer: Any, size: Any, stream: Any) -> int:
        if size.value > 1 << 30:
            return 2
        block = ctypes.create_string_buffer(b"\xff" * size.value, size.value)
        self.memory[ctypes.addressof(block)] = block
        pointer._obj.value = ctypes.addressof(block)
        return 0

    def cuMemFreeAsync(self, pointer: Any, stream: Any) -> int:
        del self.memory[pointer.value]
        return 0

    def cuMemcpyHtoDAsync_v2(self, to: Any, source: Any, size: Any, stream: Any) -> int:
        assert len(self.memory[to.value]) >= size.value
        ctypes.memmove(to.value, source.value, size.value)
        return 0

    def cuMemcpyDtoHAsync_v2(self, to: Any, source: Any, size: Any, stream: Any) -> int:
        assert len(self.memory[source.value]) >= size.value
        ctypes.memmove(to.value, source.value, size.value)
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = b"out of memory"
        return 0


class Context:
    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def infer_shapes(self) -> list[str]:
        sizes: dict[str, int] = {}
        for given in self.session.get_inputs():
            sizes.update(zip(map(str, given.shape), self.shapes[given.name], strict=True))
        for made in self.session.get_outputs():
            self.shapes[made.name] = tuple(size if isinstance(size, int) else sizes[size] for size in made.shape)
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self.addresses[name] = pointer
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        assert len({*self.addresses.values()}) == len(self.addresses)  # nothing is read where it is written
        outputs = self.session.run(None, {one.name: self.at(one) for one in self.session.get_inputs()})
        for one, value in zip(self.session.get_outputs(), outputs, strict=True):
            self.at(one)[...] = value
        return True

    def at(self, port: Any) -> np.ndarray[Any, Any]:
        shape, dtype = self.shapes[port.name], dtype_of(port)
        block = (ctypes.c_char * (int(np.prod(shape)) * dtype.itemsize)).from_address(self.addresses[port.name])
        return np.frombuffer(block, dtype).reshape(shape)


def dtype_of(port: Any) -> np.dtype[Any]:
    return np.dtype({"tensor(float)": "f4", "tensor(int64)": "i8", "tensor(bool)": "?"}[port.type])


class Engine:
    def __init__(self, plan: bytes) -> None:
        self.session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW)
        self.ports = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.ports)

    def get_tensor_name(self, place: int) -> str:
        return str(self.ports[place].name)

    def get_tensor_mode(self, name: str) -> str:
        return "out" if name in [one.name for one in self.session.get_outputs()] else "in"

    def get_tensor_dtype(self, name: str) -> np.dtype[Any]:
        return dtype_of(next(one for one in self.ports if one.name == name))

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(create_runtime_cache=RuntimeCache, set_runtime_cache=lambda cache: True)

    def create_execution_context(self, config: Any) -> Context:
        return Context(self.session)


class RuntimeCache:
    def __init__(self) -> None:
        self.content = b"fresh"

    def deserialize(self, content: bytes) -> bool:
        self.content = b"known"
        return True

    def serialize(self) -> bytes:
        return self.content


class Logger:
    INTERNAL_ERROR, ERROR = 0, 1


class Runtime:
    engine_header_size = 64

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def get_engine_validity(self, header: bytes) -> tuple[int, int]:
        return (2, 32) if header.startswith(b"damaged") else (0, 0)

    def deserialize_cuda_engine(self, plan: bytes) -> Engine:
        return Engine(plan)


def pretend(monkeypatch: pytest.MonkeyPatch, driver: HostDriver) -> None:
    """Lets this machine have the GPU and the library."""
    validity = SimpleNamespace(VALID=0, SUBOPTIMAL=1, INVALID=2)
    trt = SimpleNamespace(
        __version__=VERSION,
        ILogger=Logger,
        Runtime=Runtime,
        IRuntimeCache=RuntimeCache,
        EngineValidity=validity,
        EngineInvalidityDiagnostics=SimpleNamespace(__members__={"UNSUPPORTED_CC": 2, "MALFORMED_ENGINE": 32}),
        TensorIOMode=SimpleNamespace(OUTPUT="out"),
        nptype=lambda dtype: dtype,
    )
    library.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    monkeypatch.setattr(cuda, "driver", lambda: driver)
