"""The log of a run: `log.jsonl` is the truth, one record a line; TensorBoard's event files are a copy for its viewer.

A training record is `{"step", "loss", "lr", "gradient_norm", "seconds", "tokens_per_second", ...}`; an evaluation is
`{"step", "validation_loss", "perplexity", ...}`; a step that was not applied has `"bad": reason` and no loss. A number
that is not finite is null.
"""

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from atinuke.core.errors import fail

NAME = "log.jsonl"


class Log:
    """Appends records. Opening it drops what stands after `step`, so that a resumed run logs no step twice."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / NAME
        try:
            _truncate(self.path, step)
            self._file = self.path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        except OSError as error:
            raise fail(f"cannot be written: {error.strerror}", where=str(self.path)) from None

    def write(self, step: int, **values: float | str) -> None:
        """One record, on its way to the disk when this returns.

        Raises:
            AtinukeError: it cannot be written (disk full).
        """
        try:
            record = {name: value if _is_json(value) else None for name, value in values.items()}
            self._file.write(json.dumps({"step": step, **record}) + "\n")
            self._file.flush()
            for name, value in values.items():
                if not isinstance(value, str):
                    self._board.add_scalar(name, value, step)
        except OSError as error:
            raise fail(f"cannot be written: {error.strerror}", where=str(self.path), fix="make room, resume") from None

    def flush(self) -> None:
        """Makes every record survive a loss of power: called before a checkpoint that stands for them."""
        os.fsync(self._file.fileno())
        self._board.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what could not be written has been said by `write`
            self._file.close()
        self._board.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a log; a last line that was torn by a crash is left out.

    Raises:
        AtinukeError: the log cannot be read, or a line inside it is not a record.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror}", where=str(path)) from None
    records = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            record = json.loads(line)
            records.append({"step": int(record["step"]), **record})
        except (ValueError, TypeError, KeyError):
            raise fail("is not a record of a training log", where=f"{path}:{number}", fix="remove the line") from None
    return records


def _is_json(value: float | str) -> bool:
    return isinstance(value, str) or math.isfinite(value)


def _truncate(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [record for record in read(path) if record["step"] <= step]
    draft = path.with_suffix(".partial")
    draft.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    draft.replace(path)
