"""What makes the files of one target."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from atinuke.compile.programs import Program


@dataclass(frozen=True)
class Work:
    """What is to be built: the programs in float32, example inputs of each, and what was asked for.

    The nodes `float32` (paths such as `stack.0.norm1`) stay in float32 in a half precision. `capabilities` are those of
    the GPUs to build for (86 is 8.6); none: all that the target knows. `calibration` has inputs like `inputs`, from
    which a target that wants fixed ranges of activations takes them.
    """

    programs: Mapping[str, Program]
    inputs: Mapping[str, tuple[Tensor, ...]]
    precision: str
    float32: frozenset[str] = frozenset()
    capabilities: tuple[int, ...] = ()
    calibration: Mapping[str, Sequence[tuple[Tensor, ...]]] = field(default_factory=dict)


class Builder(ABC):
    """Builds the programs of a model for one target.

    `precisions` are those it knows, the first one the default; `packages` are what must be installed to build, by the
    name that is imported, and `extra` is the extra of Atinuke that brings them. `islands` are the precisions in which
    `Work.float32` is heeded: not where the engine itself chooses what is narrow. `reads_capabilities` says that it
    builds for `Work.capabilities`.
    """

    precisions: ClassVar[tuple[str, ...]]
    islands: ClassVar[tuple[str, ...]] = ("fp16", "bf16")
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    reads_capabilities: ClassVar[bool] = False

    def refusal(self, work: Work) -> str | None:
        """Why this target cannot have these programs in this precision; None where it can."""
        return None

    @abstractmethod
    def build(self, work: Work, folder: Path) -> None:
        """Writes the files of all programs into the folder, which is empty; the target's runner reads them.

        Raises:
            AtinukeError: the target does not take the model.
        """
