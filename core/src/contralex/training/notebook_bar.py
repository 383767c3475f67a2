"""The progress of a run in a notebook: one line of a cell's output, which is written anew in its place.

A notebook's streams are no terminals, so the bar of a terminal cannot be drawn there. What shows this line is IPython,
which every notebook has; contralex does not depend on it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from contralex.progress import duration

_EVERY = 0.5  # seconds from one line to the next
_CELLS = 24


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ in ("ZMQInteractiveShell", "Shell")  # Jupyter's and Colab's


class NotebookBar:
    """As :class:`contralex.training.progress_bar.Bar`, for a notebook."""

    def __init__(self, console: Console, name: str, epochs: int, total: int, step: int, *, shown: bool) -> None:
        self.shown = shown
        self._name = name
        self._epochs = epochs
        self._total = total
        self._step = self._began_with = step
        self._epoch = 1
        self._figures: Sequence[str] = ()
        self._display: Any = None
        self._began = self._drawn = time.monotonic()

    def start(self) -> None:
        if not self.shown:
            return
        from IPython.display import display  # type: ignore[import-not-found, unused-ignore]

        self._began = time.monotonic()
        show: Any = display
        self._display = show({"text/plain": self._line()}, raw=True, display_id=True)

    def stop(self) -> None:
        self._draw()

    def at(self, step: int, epoch: int) -> None:
        self._step, self._epoch = step, epoch
        if time.monotonic() - self._drawn >= _EVERY:
            self._draw()

    def show(self, figures: Sequence[str]) -> None:
        """The figures of the last logging period, the one that matters most first."""
        self._figures = figures

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._display is not None:
            self._display.update({"text/plain": self._line()}, raw=True)

    def _line(self) -> str:
        done = self._step * _CELLS // self._total
        bar = "█" * done + "░" * (_CELLS - done)
        here = f"{self._name} epoch {self._epoch}/{self._epochs} {bar} {self._step:,}/{self._total:,}"
        return "  ".join([here, *self._left(), *self._figures])

    def _left(self) -> list[str]:
        done = self._step - self._began_with
        if not done or self._step == self._total:
            return []
        return [f"{duration((time.monotonic() - self._began) / done * (self._total - self._step))} left"]
