"""The few functions of the CUDA driver that a runner needs, without CUDA's toolkit: the driver's library is on every
machine that has a GPU, and its interface is stable (CUDA Driver API, docs.nvidia.com/cuda/cuda-driver-api)."""

import ctypes
import sys
import weakref
from typing import Any

import numpy as np

from atinuke.core.errors import fail
from atinuke.runtime.interface import Array
from atinuke.runtime.runner import not_here

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR, _POOLS = 75, 76, 115  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR, _MEMORY_POOLS_SUPPORTED
_RELEASE_THRESHOLD = 4  # CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


def driver() -> Any:
    """The driver's library; None where there is none."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None


class Cuda:
    """The first GPU, with one stream on which everything happens in order.

    Raises:
        NotHereError: there is no driver, or no GPU that it can use.
    """

    def __init__(self) -> None:
        self._driver = driver()
        if self._driver is None:
            fix = "install the driver, or choose a target that runs on the CPU"
            raise not_here(f"this machine has no NVIDIA driver: there is no {LIBRARY}", fix=fix)
        self._call("cuInit", 0)
        device, context, pool = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        major, minor, pools = (self._attribute(which, device) for which in (_MAJOR, _MINOR, _POOLS))
        self.capability = 10 * major + minor
        if not pools:
            raise not_here("this GPU's driver has no memory pools", fix="install a driver of CUDA 11.2 or newer")
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._context = context
        self.enter()
        self._call("cuDeviceGetDefaultMemPool", ctypes.byref(pool), device)
        forever = ctypes.c_uint64(2**64 - 1)  # what is freed stays in the pool for the next call
        self._call("cuMemPoolSetAttribute", pool, _RELEASE_THRESHOLD, ctypes.byref(forever))
        self._stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(self._stream), _NON_BLOCKING)

    @property
    def stream(self) -> int:
        """The stream's handle, which CUDA's runtime takes too."""
        return self._stream.value or 0

    def enter(self) -> None:
        """Makes the GPU's context that of the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def empty(self, shape: tuple[int, ...], dtype: str) -> "DeviceArray":
        """Memory on the GPU, freed when nothing refers to it any more."""
        found = DeviceArray(self, shape, np.dtype(dtype))
        pointer = ctypes.c_uint64()
        self._call("cuMemAllocAsync", ctypes.byref(pointer), ctypes.c_size_t(max(found.nbytes, 1)), self._stream)
        found.pointer = pointer.value
        weakref.finalize(found, self._free, found.pointer)
        return found

    def upload(self, array: Array) -> "DeviceArray":
        """A copy on the GPU; the array may be changed at once, since the driver stages what it copies."""
        array = np.ascontiguousarray(array)
        found = self.empty(array.shape, array.dtype.str)
        pointer, size = ctypes.c_uint64(found.pointer), ctypes.c_size_t(found.nbytes)
        if found.nbytes:
            self._call("cuMemcpyHtoDAsync_v2", pointer, ctypes.c_void_p(array.ctypes.data), size, self._stream)
        return found

    def download(self, array: "DeviceArray") -> Array:
        """A copy on the host, once everything before it has been done."""
        found = np.empty(array.shape, array.dtype)
        pointer, size = ctypes.c_uint64(array.pointer), ctypes.c_size_t(array.nbytes)
        if array.nbytes:
            self._call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(found.ctypes.data), pointer, size, self._stream)
        self._call("cuStreamSynchronize", self._stream)
        return found

    def _free(self, pointer: int) -> None:
        self.enter()
        self._call("cuMemFreeAsync", ctypes.c_uint64(pointer), self._stream)

    def _attribute(self, which: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), which, device)
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._driver, function)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            raise fail(f"the NVIDIA driver refuses: {(text.value or b'unknown error').decode()}", f"{function}: {code}")


class DeviceArray:
    """Memory on the GPU with the shape and dtype of what it holds; `np.asarray` makes a copy on the host."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> None:
        self.cuda = cuda
        self.shape = shape
        self.dtype = dtype
        self.nbytes = int(np.prod(shape)) * dtype.itemsize
        self.pointer = 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        self.cuda.enter()
        return self.cuda.download(self).astype(dtype or self.dtype, copy=False)
