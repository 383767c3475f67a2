"""Ctrl-C, SIGTERM and SIGHUP: the first saves at the end of the step, a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

# A launcher passes on what the whole job was sent as well, so a process may get one signal twice.
_ECHO = 1.0  # seconds
_received: list[int] = []  # signals that interrupted this command


class Interrupted(BaseException):
    """A signal came before there was anything to save."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(number).name}.")
        self.exit_code = 128 + number


def stop_signals() -> list[int]:
    """The signals that ask a process to stop. SIGHUP comes when a terminal or an ssh session closes; a process that was
    started with nohup goes on."""
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is None or signal.getsignal(hang_up) is signal.SIG_IGN:
        return [signal.SIGINT, signal.SIGTERM]
    return [signal.SIGINT, signal.SIGTERM, hang_up]


@contextmanager
def handle_with(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Within, these signals come to ``handler``. On a thread that is not the main one they stay as they are, for Python
    lets the main thread alone handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in stop_signals()}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def interrupt_command() -> Iterator[None]:
    """Within, a signal raises :class:`Interrupted`, so that a command ends with a sentence at any moment.

    Also where another package took it for an error of its own, as happens within imports.
    """
    here = os.getpid()

    def handler(number: int, frame: FrameType | None) -> None:
        if os.getpid() == here:
            _received.append(number)
            raise Interrupted(number)
        signal.signal(number, signal.SIG_DFL)  # a process that was forked from this one
        os.kill(os.getpid(), number)

    try:
        with handle_with(handler):
            yield
    except BaseException as error:
        if _received and not isinstance(error, Interrupted):
            raise Interrupted(_received[0]) from None
        raise
    finally:
        _received.clear()


@contextmanager
def defer_signals() -> Iterator[Callable[[], int]]:
    """Within, a signal is only noted; what is yielded tells its number, or 0."""
    first = [(number, time.monotonic()) for number in _received[:1]]  # one that was taken for an error, and lost

    def handler(number: int, frame: FrameType | None) -> None:
        if not first:
            first.append((number, time.monotonic()))
        elif time.monotonic() - first[0][1] > _ECHO:
            with suppress(OSError):  # the terminal may be gone
                print("Stopped at once; what was saved before can be gone on from.", file=sys.stderr, flush=True)
            os._exit(128 + number)

    with handle_with(handler):
        yield lambda: first[0][0] if first else 0
