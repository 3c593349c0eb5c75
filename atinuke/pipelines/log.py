"""The log of a run: `log.jsonl` is the truth, one record a line; TensorBoard's event files are a copy for its viewer.

A training record is `{"step", "loss", "waiting", "lr", "gradient_norm", "seconds", "tokens_per_second", ...}`
(`waiting` is the share of the time spent waiting for data); an evaluation is
`{"step", "validation_loss", "perplexity", ...}`; a step that was not applied has `"bad": reason` and no loss. A number
that is not finite is null.
"""

import json
import math
import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from atinuke.core.errors import AtinukeError, fail

NAME = "log.jsonl"


class Log:
    """Appends records. Opening it drops what stands after `step`, so that a resumed run logs no step twice."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / NAME
        self._files = ExitStack()
        try:
            _truncate(self.path, step)
            self._file = self._files.enter_context(self.path.open("a", encoding="utf-8"))
            self._board = self._files.enter_context(_Board(folder / "tensorboard", step))
        except OSError as error:
            raise self._failure(error) from None

    def write(self, step: int, **values: float | str) -> None:
        """One record, on its way to the disk when this returns.

        Raises:
            AtinukeError: it cannot be written (disk full).
        """
        numbers = {name: value for name, value in values.items() if not isinstance(value, str)}
        infinite = {name: None for name, value in numbers.items() if not math.isfinite(value)}
        try:
            self._file.write(json.dumps({"step": step, **values, **infinite}) + "\n")
            self._file.flush()
            self._board.write(step, numbers)
        except OSError as error:
            raise self._failure(error) from None

    def flush(self) -> None:
        """Makes every record survive a loss of power: called before a checkpoint that stands for them."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> AtinukeError:
        return fail(f"cannot be written: {error.strerror or error}", where=str(self.path), fix="make room, then resume")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # of what could not be written, `write` has told
            self._files.close()


class _Board:
    """An event file, written at once; TensorBoard's own writer has a thread of its own, whose errors nobody sees."""

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        folder.mkdir(parents=True, exist_ok=True)
        self._event, self._summary = Event, Summary
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}").open("ab")
        self._writer = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        self._add(step=step + 1, session_log=SessionLog(status=SessionLog.START))  # later steps in older files are void

    def write(self, step: int, values: dict[str, float]) -> None:
        scalars = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        if scalars:
            self._add(step=step, summary=self._summary(value=scalars))

    def _add(self, **fields: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a log; a last line that was torn by a crash is left out.

    Raises:
        AtinukeError: the log cannot be read, or a line inside it is not a record.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    records = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            record = json.loads(line)
            records.append({**record, "step": int(record["step"])})
        except (ValueError, TypeError, KeyError):
            raise fail("is not a record of a training log", where=f"{path}:{number}", fix="remove the line") from None
    return records


def _truncate(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [record for record in read(path) if record["step"] <= step]
    draft = path.with_suffix(".partial")
    draft.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    draft.replace(path)
