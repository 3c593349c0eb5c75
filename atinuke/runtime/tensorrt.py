"""Runs TensorRT engines on an NVIDIA GPU. What can be known to be wrong is refused before an engine is loaded."""

import hashlib
import os
import re
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from atinuke.core.errors import AtinukeError, fail
from atinuke.core.files import replacing
from atinuke.runtime.cuda import LIBRARY, Cuda, DeviceArray, driver
from atinuke.runtime.interface import Array, Axes, Interface
from atinuke.runtime.runner import Memory, Runner, not_here
from atinuke.runtime.strict import Value, read_json
from atinuke.runtime.tensorrt_library import LIBRARIES, MANIFEST, Library, library

_FILE = re.compile(r"[A-Za-z0-9_.-]+\.engine")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*[A-Za-z0-9.+-]*")


@dataclass(frozen=True)
class Engine:
    """One file of a program: its size in bytes, the compute capabilities that it runs on (86 is 8.6), and whether it
    runs on those that came later too."""

    file: str
    size: int
    capabilities: tuple[int, ...]
    later: bool

    def fits(self, capability: int) -> bool:
        return capability in self.capabilities or (self.later and capability > max(self.capabilities))


@dataclass(frozen=True)
class Manifest:
    """What `engine.json` says: the library and version that built the engines, and those of each program; one for a
    single capability stands before one for many."""

    library: str
    version: str
    engines: Mapping[str, tuple[Engine, ...]]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of engines.

    Raises:
        AtinukeError: it is missing or something in it is not what it must be.
    """
    whole = read_json(folder / MANIFEST).record("library", "version", "engines")
    name = whole["library"].choice(LIBRARIES)
    version = whole["version"].text(_VERSION, "a version")
    engines = whole["engines"].mapping()
    return Manifest(name, version, {name: tuple(map(_engine, of.items(low=1))) for name, of in engines.items()})


def _engine(value: Value) -> Engine:
    plain = value.record("file", "size", "capabilities", "later")
    capabilities = tuple(one.whole(10, 9999) for one in plain["capabilities"].items(low=1))
    file = plain["file"].text(_FILE, "a file's name")
    return Engine(file, plain["size"].whole(), capabilities, plain["later"].flag())


class TensorRTRunner(Runner):
    """One engine a program, on the first GPU. Caches stay on the GPU from step to step.

    What TensorRT for RTX compiles for this GPU and these sizes is kept in `$XDG_CACHE_HOME/atinuke`, so that it is
    compiled once.
    """

    packages = LIBRARIES[:1]
    extra = "tensorrt"
    native = True

    @classmethod
    def missing(cls) -> str | None:
        """What this machine lacks to run engines, in a few words; None: nothing."""
        if not any(find_spec(name) for name in LIBRARIES):
            return LIBRARIES[0]
        return None if driver() else f"an NVIDIA driver ({LIBRARY})"

    def __init__(
        self,
        folder: Path,
        programs: Mapping[str, Interface],
        axes: Axes,
        precision: str,
        threads: int | None = None,
    ) -> None:
        super().__init__(folder, programs, axes, precision, threads)
        manifest = read_manifest(folder)
        for name in programs:
            if name not in manifest.engines:
                raise fail(f"there is no engine of `{name}`", where=str(folder / MANIFEST))
        for engine in (engine for name in programs for engine in manifest.engines[name]):
            check_size(folder / engine.file, engine.size)
        lib = library(manifest.library)
        if lib.version != manifest.version:
            raise not_here(
                f"the engines are of {manifest.library} {manifest.version}, and here is {lib.version}",
                f"of {folder}",
                fix=f"pip install '{manifest.library}=={manifest.version}', or build again with {lib.version}",
            )
        self._cuda = Cuda()
        runtime = lib.trt.Runtime(lib.logger)
        self._programs: dict[str, _Loaded] = {}
        for name in programs:
            engine = _choose(manifest.engines[name], self._cuda.capability, str(folder))
            self._programs[name] = _Loaded(lib, runtime, self._cuda, folder / engine.file)

    def call(self, program: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {name: self._cuda.download(array) for name, array in self._programs[program].call(feeds).items()}

    def step(self, program: str, feeds: Mapping[str, Array], memory: Memory) -> dict[str, Array]:
        """As for any runner, but what is in `memory` afterwards is on the GPU: each cache is written into new memory,
        since an engine may read the old one while it writes."""
        interface = self.programs[program]
        whole: dict[str, Any] = {**feeds, **memory}
        interface.check(whole, self.axes)
        outputs: dict[str, Any] = self._programs[program].call(whole)
        memory.update({name: outputs.pop(output) for name, output in interface.memory.items()})
        return {name: self._cuda.download(array) for name, array in outputs.items()}


class _Loaded:
    """An engine with its context."""

    def __init__(self, lib: Library, runtime: Any, cuda: Cuda, file: Path) -> None:
        self._library = lib
        self._cuda = cuda
        self._where = str(file)
        plan = file.read_bytes()
        lib.messages.clear()
        _check_validity(lib, runtime, plan, self._where)
        self._engine = runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise lib.wrong("the engine cannot be loaded", self._where)
        self._context = self._make_context(hashlib.sha256(plan).hexdigest())
        if self._context is None:
            raise lib.wrong("the engine has no room on this GPU", self._where)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        modes = lib.trt.TensorIOMode
        self._outputs = [name for name in names if self._engine.get_tensor_mode(name) == modes.OUTPUT]

    def call(self, feeds: Mapping[str, Array | DeviceArray]) -> dict[str, DeviceArray]:
        """The outputs, on the GPU."""
        self._cuda.enter()
        self._library.messages.clear()
        bound: dict[str, DeviceArray] = {}
        for name, value in feeds.items():
            bound[name] = value if isinstance(value, DeviceArray) else self._cuda.upload(value)
            if not self._context.set_input_shape(name, bound[name].shape):
                raise self._library.wrong(f"the engine does not take `{name}` of {value.shape}", self._where)
        self._context.infer_shapes()
        outputs: dict[str, DeviceArray] = {}
        for name in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            dtype = self._library.trt.nptype(self._engine.get_tensor_dtype(name))
            outputs[name] = self._cuda.empty(shape, dtype)
        for name, array in {**bound, **outputs}.items():
            self._context.set_tensor_address(name, array.pointer)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise self._library.wrong("the engine failed", self._where)
        return outputs

    def _make_context(self, key: str) -> Any:
        if not hasattr(self._library.trt, "IRuntimeCache"):
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        cache = config.create_runtime_cache()
        file = _cache_folder() / f"{key}.sm{self._cuda.capability}.cache"
        with suppress(OSError):
            cache.deserialize(file.read_bytes())  # False where it is of another driver; it is written anew then
        config.set_runtime_cache(cache)
        weakref.finalize(self, _keep, cache, file)
        return self._engine.create_execution_context(config)


def _choose(engines: tuple[Engine, ...], capability: int, where: str) -> Engine:
    for engine in engines:
        if engine.fits(capability):
            return engine
    built = sorted({one for engine in engines for one in engine.capabilities})
    raise not_here(
        f"this GPU has compute capability {capability / 10}",
        f"the engines of {where} are for {', '.join(str(one / 10) for one in built)}",
        fix=f"build with --capability {capability / 10}",
    )


def check_size(file: Path, size: int) -> None:
    """Refuses an engine's file that is missing, a link, or of another size than its manifest says."""
    if file.is_symlink() or not file.is_file():
        raise fail("there is no such engine", where=str(file))
    if file.stat().st_size != size:
        raise fail(f"the engine is damaged: it has {file.stat().st_size} bytes of {size}", where=str(file))


def _check_validity(lib: Library, runtime: Any, plan: bytes, where: str) -> None:
    """What TensorRT for RTX itself says of an engine's header; its answer means nothing on a machine without a GPU."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, diagnostics = runtime.get_engine_validity(plan[: runtime.engine_header_size])
    if validity == lib.trt.EngineValidity.INVALID:
        known = lib.trt.EngineInvalidityDiagnostics.__members__
        words = [word for word, flag in known.items() if int(diagnostics) & int(flag)]
        raise fail(f"the engine is not valid here: {', '.join(words) or 'unknown reason'}", where=where)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atinuke"


def _keep(cache: Any, file: Path) -> None:
    """Writes what was compiled on this machine; a cache that cannot be written costs time and nothing else."""
    with suppress(OSError, AtinukeError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as draft:
            draft.write_bytes(bytes(cache.serialize()))
