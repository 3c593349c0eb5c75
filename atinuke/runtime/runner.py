"""What runs the programs of one target on this machine. A backend names its runner; a runner needs no torch where the
target needs none."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np

from atinuke.core.errors import AtinukeError, Mistake, fail, first_line
from atinuke.runtime.interface import Array, Axes, Interface

Memory = dict[str, Array]


class NotHereError(AtinukeError):
    """This machine lacks what a target needs: a package, a GPU, a driver. It says nothing against the files."""


def not_here(what: str, *details: str, fix: str | None = None) -> NotHereError:
    """The error to be raised: `raise not_here("ONNX Runtime is not installed", fix="pip install ...")`."""
    return NotHereError(Mistake(what, details=details, fix=fix))


class Runner(ABC):
    """The compiled programs in a folder, opened for calls.

    `programs` and `axes` are those of the bundle; `precision` is what the folder was built in; a call uses `threads`
    threads (None: as many as the engine likes). `packages` are what must be installed to run, by the name that is
    imported, and `extra` is the extra of Atinuke that brings them. `native` says that the files hold machine code,
    which can do whatever a program can: such a build runs only when it is named.

    Raises:
        NotHereError: this machine lacks the engine, or what the engine needs.
        AtinukeError: the engine does not take these files.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    native: ClassVar[bool] = False

    @classmethod
    def missing(cls) -> str | None:
        """What this machine lacks to run such files, in a few words, found without opening any; None: nothing."""
        return next((name for name in cls.packages if find_spec(name) is None), None)

    def __init__(
        self,
        folder: Path,
        programs: Mapping[str, Interface],
        axes: Axes,
        precision: str,
        threads: int | None = None,
    ) -> None:
        self.folder = folder
        self.programs = programs
        self.axes = axes
        self.precision = precision
        self.threads = threads

    @abstractmethod
    def call(self, program: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of one call; the feeds have been checked."""

    def run(self, program: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of one call by name.

        Raises:
            AtinukeError: the feeds do not fit the program (see `Interface.check`), or the engine fails at these sizes.
        """
        sizes = self.programs[program].check(feeds, self.axes)
        try:
            return self.call(program, feeds)
        except AtinukeError:
            raise
        except Exception as error:  # whatever the engine raises
            told = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise fail(f"`{program}` fails at {told}", first_line(error), where=str(self.folder)) from error

    def begin(self, program: str, sizes: Mapping[str, int]) -> Memory:
        """Empty caches for a program, at sizes of its axes (`batch`, `capacity`)."""
        interface = self.programs[program]
        return {
            port.name: np.zeros([size if isinstance(size, int) else sizes[size] for size in port.shape], port.dtype)
            for port in interface.inputs
            if port.name in interface.memory
        }

    def grow(self, program: str, memory: Memory, sizes: Mapping[str, int]) -> Memory:
        """Caches of larger sizes with the contents of `memory`, at the front."""
        larger = self.begin(program, sizes)
        for name, old in memory.items():
            larger[name][tuple(map(slice, old.shape))] = old
        return larger

    def step(self, program: str, feeds: Mapping[str, Array], memory: Memory) -> dict[str, Array]:
        """The outputs of one call that reads and changes `memory`, which is updated in place."""
        interface = self.programs[program]
        outputs = self.run(program, {**feeds, **memory})
        memory.update({name: outputs.pop(output) for name, output in interface.memory.items()})
        return outputs
