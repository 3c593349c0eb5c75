"""What a person sees of a run: one live line with loss, rate, speed and time left, and a line for each event."""

from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Display:
    """A progress bar up to `steps`."""

    def __init__(self, console: Console, steps: int) -> None:
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("train", total=steps, figures="")

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Moves the bar; `figures` is the step's record in the log."""
        text = "loss {loss:.3f}  lr {lr:.2e}".format(**figures)
        speed, unit = next((v, k.removesuffix("_per_second")) for k, v in figures.items() if k.endswith("_per_second"))
        text += f"  {speed:,.0f} {unit}/s"
        if "mfu" in figures:
            text += f"  MFU {figures['mfu']:.0%}"
        self._progress.update(self._task, completed=step, figures=text)

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
