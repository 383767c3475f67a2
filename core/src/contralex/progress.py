"""Signs of life of what takes long, from the logger ``contralex.progress``. A command prints them by :func:`listen`."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from contralex import streams

T = TypeVar("T")

FIRST, PERIOD = 5.0, 30.0  # seconds: until the first sign, and from one to the next

_log = logging.getLogger("contralex.progress")
_tasks: list[_Task] = []  # the innermost last, which alone speaks


@contextmanager
def during(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Around something that may take long: says after some seconds, and then every half minute, how far it is.

    What is yielded is called with how many of ``total`` are done. Of several processes the main one speaks.
    """
    task = _Task(what, total)
    _tasks.append(task)
    if os.environ.get("RANK", "0") == "0" and _log.isEnabledFor(logging.INFO):
        task.start()
    try:
        yield task.set_done
    finally:
        task.stop()
        _tasks.remove(task)


def steps(what: str, items: Iterable[T], total: int) -> Iterator[T]:
    """The same items, of which there are ``total``."""
    with during(what, total) as done:
        for number, item in enumerate(items):
            done(number)
            yield item


def say(text: str) -> None:
    """A line at once."""
    if os.environ.get("RANK", "0") == "0":
        _log.info("%s", text)


def listen(to: Literal["stdout", "stderr"]) -> None:
    """Prints the signs. To stderr where stdout is for figures that other programs read."""
    for handler in list(_log.handlers):
        _log.removeHandler(handler)
    _log.addHandler(_Print(to))
    _log.setLevel(logging.INFO)
    _log.propagate = False


@contextmanager
def listening(to: Literal["stdout", "stderr"]) -> Iterator[Literal["stdout", "stderr"]]:
    """Within, the signs are printed, for a function that somebody calls from Python. Where they are printed already, as
    by a command, they stay there. What is yielded is the stream."""
    before = next((handler.to for handler in _log.handlers if isinstance(handler, _Print)), None)
    if before is not None:
        yield before
        return
    handler, level, propagate = _Print(to), _log.level, _log.propagate
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    try:
        yield to
    finally:
        _log.removeHandler(handler)
        _log.setLevel(level)
        _log.propagate = propagate


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 20 min``, ``4 days 2 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"


class _Task:
    def __init__(self, what: str, total: int | None) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self.began = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def set_done(self, done: int) -> None:
        self.done = done

    def start(self) -> None:
        self._thread = threading.Thread(target=self._speak, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _speak(self) -> None:
        wait = FIRST
        while not self._over.wait(wait):
            if _tasks and _tasks[-1] is self:
                _log.info("%s", self.line(time.monotonic() - self.began))
            wait = PERIOD

    def line(self, seconds: float) -> str:
        if self.total is None:
            return f"{self.what}: {duration(seconds)} so far"
        left = f", {duration(seconds * (self.total - self.done) / self.done)} left" if self.done else ""
        return f"{self.what}: {self.done:,} of {self.total:,}{left}"


class _Print(logging.Handler):
    """Writes to the stream that has the name now: a progress bar puts another in its place."""

    def __init__(self, to: Literal["stdout", "stderr"]) -> None:
        super().__init__()
        self.to = to

    def emit(self, record: logging.LogRecord) -> None:
        streams.write_line(getattr(sys, self.to), record.getMessage())
