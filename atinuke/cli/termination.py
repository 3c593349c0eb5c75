"""SIGTERM as Ctrl-C: it ends the program by way of every `finally`, so that nothing half written stays."""

import signal
from types import FrameType
from typing import NoReturn


class Terminated(BaseException):
    """SIGTERM came."""


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """A handler of signals: the first raises Terminated, a second one ends the program at once."""
    signal.signal(number, signal.SIG_DFL)
    raise Terminated
