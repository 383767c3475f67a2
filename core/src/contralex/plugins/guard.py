"""Running a stranger's module as it is imported: one that hangs is named, and one that would end the process does not.

What holds Python's lock while it hangs (a C extension, a regular expression) keeps the sentence back as well.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

PATIENCE = 5.0  # seconds
_WATCHES = "contralex watches imports"  # the name of a thread
# What ends or replaces a process without an exception, and so without a word of whose doing it was.
_ENDINGS = ("_exit", "abort", "execv", "execve")
_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is not on every system


class Ended(SystemExit):
    """In place of the end of the process."""


@contextmanager
def guarded(what: str, way_out: str) -> Iterator[None]:
    """``what`` is being done, such as "importing contralex-x"; ``way_out``: a sentence for when it does not end."""
    with (
        _WATCH.over(f"Still {what} after {PATIENCE:g} s. {way_out}"),
        _interruptible(f"Stopped while {what}. {way_out}", os._exit),
        _no_ending(),
    ):
        yield


class _Watch:
    """Says what takes longer than :data:`PATIENCE`, from one thread, which sleeps until the first may be late: a thread
    for each plugin takes longer than most of them do to be imported."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[object, tuple[float, str]] = {}  # what is being done and was not said yet
        self._thread = threading.Thread()

    @contextmanager
    def over(self, sentence: str) -> Iterator[None]:
        mine = object()
        with self._lock:
            self._due[mine] = time.monotonic() + PATIENCE, sentence
            if not self._thread.is_alive():
                self._thread = threading.Thread(target=self._wait, name=_WATCHES, daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._due.pop(mine, None)

    def _wait(self) -> None:
        while True:
            with self._lock:
                if not self._due:
                    self._thread = threading.Thread()
                    return
                first = min(self._due, key=lambda each: self._due[each][0])
                when, sentence = self._due[first]
                if when <= time.monotonic():
                    del self._due[first]
                    _say(sentence)
            time.sleep(max(0.0, when - time.monotonic()))


_WATCH = _Watch()


@contextmanager
def _no_ending() -> Iterator[None]:
    """Within, and in this thread and process alone, what would end the process raises :class:`Ended`."""
    modules = [os, sys.modules[os.name]]  # the second is where the first has them from: posix, or nt
    owner = (os.getpid(), threading.get_ident())
    real = {name: getattr(os, name) for name in _ENDINGS}
    active = True

    def raising(name: str) -> Callable[..., Any]:
        def end(*arguments: Any) -> Any:
            if active and owner == (os.getpid(), threading.get_ident()):
                raise Ended(f"it called os.{name}, which would have ended the command")
            return real[name](*arguments)  # of a process that it forked, say; or kept by the module, and called later

        return end

    for name in _ENDINGS:
        made = raising(name)
        for module in modules:
            setattr(module, name, made)
    try:
        yield
    finally:
        active = False
        for name, function in real.items():
            for module in modules:
                setattr(module, name, function)


@contextmanager
def _interruptible(sentence: str, leave: Callable[[int], NoReturn]) -> Iterator[None]:
    """Within, Ctrl-C says what it stopped; a second one ends the process, even where the module catches the first.

    So does every signal that the program answers with an exception: SIGTERM and SIGHUP too in a command of ours.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _STOPPING if hasattr(signal, name)]
    before = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    came: list[BaseException] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if came:
            leave(128 + number)
        try:
            before[number](number, frame)
        except BaseException as interruption:
            came.append(interruption)
            _say(sentence)
            raise

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, handler)
        if came:  # not lost where the module took it for an error of its own
            raise came[0]


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
