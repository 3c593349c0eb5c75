"""TensorRT as one library: `tensorrt_rtx`, or classic `tensorrt` where that is what is installed. Both have the same
names, but for what only one of them can do; that is asked of them (`hasattr`)."""

import importlib
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from atinuke.core.errors import AtinukeError, fail
from atinuke.runtime.runner import not_here

LIBRARIES = ("tensorrt_rtx", "tensorrt")
MANIFEST = "engine.json"


def preferred() -> str:
    """The library that engines are built with: TensorRT for RTX, unless only the classic one is installed."""
    return next((name for name in LIBRARIES if find_spec(name)), LIBRARIES[0])


class Library:
    """A loaded library. It takes one logger in a process, so there is one object of it: `library`."""

    def __init__(self, name: str) -> None:
        try:
            self.trt: Any = importlib.import_module(name)
        except (ImportError, OSError) as error:
            extra = "atinuke[tensorrt]" if name == LIBRARIES[0] else name
            raise not_here(f"{name} cannot be loaded: {error}", fix=f"pip install '{extra}'") from None
        self.name = name
        self.version: str = self.trt.__version__
        self.messages: list[str] = []
        self.logger = self._logger()

    def wrong(self, what: str, where: str, fix: str | None = None) -> AtinukeError:
        """The error of a call, with what the library has said since `messages` was cleared."""
        return fail(what, *self.messages[:3], where=where, fix=fix)

    def _logger(self) -> Any:
        trt, messages = self.trt, self.messages

        class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                    messages.append(message)

        return Logger()


@lru_cache
def library(name: str) -> Library:
    """The library of that name.

    Raises:
        NotHereError: it is not installed, or does not load on this machine.
    """
    return Library(name)
