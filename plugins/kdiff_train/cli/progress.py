"""What is seen of a run in a terminal: a bar that moves, or lines where there is no terminal."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

from rich import progress
from rich.text import Text

from kdiff_core.cli.console import console

from ..events import Event

_SMOOTHING = 0.05  # share of the newest loss in what is shown


class _Speed(progress.ProgressColumn):
    """Images a second."""

    def render(self, task: progress.Task) -> Text:
        """Return what is shown."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} images/s")


class Progress:
    """Shows loss, images a second and the time left; a callback of the trainer.

    Args:
        total: Images of the run.
    """

    def __init__(self, total: int) -> None:
        self.total, self._loss = total, None
        self._console = console(stderr=True)
        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("images, loss {task.fields[loss]}"),
            _Speed(),
            progress.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, loss="")

    def __enter__(self) -> Progress:
        """Begin to show."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state where it is."""
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, soft_wrap=True)

    def __call__(self, event: Event) -> None:
        """Show what happened."""
        values = event.values
        if event.kind in ("start", "resume"):
            self._bar.start()
            self._bar.reset(self._task, completed=event.images, loss="")
        if event.kind == "resume":
            self.say(f"going on from image {event.images:,}")
            for each in values["passed_over"]:
                self.say(f"passed over: {each}")
            if values["changed"]:
                self.say(f"changed since: {', '.join(values['changed'])}")
        elif event.kind == "update":
            self._update(event)
        elif event.kind == "skip":
            self.say(f"image {event.images:,}: an update was skipped: {values['message']}")
        elif event.kind == "log" and not self._console.is_terminal:
            self.say(self._line(event))

    def _update(self, event: Event) -> None:
        new = event.values["loss"]
        if math.isfinite(new):  # else the update was skipped
            self._loss = new if self._loss is None else self._loss + _SMOOTHING * (new - self._loss)
        shown = "" if self._loss is None else f"{self._loss:.4f}"
        self._bar.update(self._task, completed=event.images, loss=shown)

    def _line(self, event: Event) -> str:
        values: Any = event.values
        speed = values["images_per_second"]
        loss = "-" if values["loss"] is None else f"{values['loss']:.4f}"
        left = round((self.total - event.images) / speed) if speed else 0
        hours, minutes = left // 3600, left // 60 % 60
        return (
            f"{event.images:,} of {self.total:,} images, loss {loss}, {speed:,.0f} images/s, "
            f"{hours}:{minutes:02d}:{left % 60:02d} left"
        )
