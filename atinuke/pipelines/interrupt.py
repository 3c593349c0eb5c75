"""Ctrl-C and SIGTERM as a polite request: the step in hand is finished, a second one ends the program at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """`came` is the first signal that came, or None."""

    came: signal.Signals | None = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.came is not None:
            raise KeyboardInterrupt
        self.came = signal.Signals(number)


@contextmanager
def listening() -> Iterator[Interrupt]:
    """Collects the signals that arrive meanwhile; outside the main thread, where Python cannot, none arrive."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.signal(number, interrupt._note) for number in SIGNALS}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
