"""The progress bar of a run on a terminal. What matters least goes first where the terminal is narrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

_WIDE = 24  # cells of the bar itself
_NARROW = 10
_TIME = 8  # cells: -:--:--
_GAP = "  "


class Bar:
    def __init__(self, console: Console, name: str, epochs: int, total: int, step: int, *, shown: bool) -> None:
        self.shown = shown
        self._console = console
        self._name = name
        self._epochs = epochs
        self._total = total
        self._epoch = 1
        self._figures: Sequence[str] = ()
        columns: list[ProgressColumn] = [
            _Cell(self._head),
            _Line(console),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            _Cell(self._tail),
        ]
        self._progress = Progress(*columns, console=console, disable=not shown)
        self._task = self._progress.add_task("", total=total, completed=step)

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def at(self, step: int, epoch: int) -> None:
        self._epoch = epoch
        if self.shown:
            self._progress.update(self._task, completed=step)

    def show(self, figures: Sequence[str]) -> None:
        """The figures of the last logging period, the one that matters most first."""
        self._figures = figures

    def _head(self) -> str:
        """The run and its epoch; the epoch alone where that leaves no room for the loss and the speed."""
        epoch = f"epoch {self._epoch}/{self._epochs}"
        whole = f"{self._name} {epoch}"
        if len(" ".join([whole, _GAP.join(self._figures[:2])])) <= self._room():
            return whole
        return epoch if len(epoch) <= self._room() else ""

    def _tail(self) -> str:
        """As many figures as fit behind the rest."""
        room = self._room() - len(self._head()) - 1
        shown = list(self._figures)
        while shown and len(_GAP.join(shown)) > room:
            shown.pop()
        return _GAP.join(shown)

    def _room(self) -> int:
        """Cells that bar, step count and time left do not take."""
        return self._console.width - bar_width(self._console.width) - (2 * len(str(self._total)) + 1) - _TIME - 4


def bar_width(terminal: int) -> int:
    return _WIDE if terminal >= 80 else _NARROW


class _Cell(ProgressColumn):
    """Text that a function gives, which is never markup."""

    max_refresh = None

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text
        super().__init__()

    def render(self, task: Task) -> Text:
        return Text(self._text(), no_wrap=True)


class _Line(BarColumn):
    def __init__(self, console: Console) -> None:
        self._console = console
        super().__init__(bar_width=_WIDE)

    def render(self, task: Task) -> ProgressBar:
        self.bar_width = bar_width(self._console.width)
        return super().render(task)
