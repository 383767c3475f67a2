"""The processes that read data: how they begin, that they leave signals to the main process, and how they die."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from types import FrameType

from contralex.errors import ContralexError

_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


def worker_context() -> BaseContext:
    """How workers begin, whatever Python's default is.

    Forked workers share the data set's memory and begin at once, beside a GPU as well: they never use it, as torch's
    own do not. A worker that is not forked imports torch first: with fifteen of them and 50,000 files no step had begun
    after a minute. On macOS no process forks safely.
    """
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def quiet_worker(number: int) -> None:
    """In a worker: leave signals to the main process, which ends the workers itself.

    SIGTERM and SIGHUP too: a cluster, or a terminal that closes, sends them to every process of a job, and a worker
    that died of it would take the main process down before it had saved. A worker ends when its main process is gone.
    """
    for name in _STOP_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _die_with_parent()


def _die_with_parent() -> None:
    """Where the system has no such call, torch's own watch ends a worker."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class WorkerDied(ContralexError):
    """A worker is gone, as one that was killed for memory. ``reason``: torch's word of it. ``way``: what to do."""

    exit_code = 1

    def __init__(self, reason: str, way: str = "Free some memory, and try again.") -> None:
        super().__init__(f"A data worker died ({reason:.120}), most often because memory ran out. {way}")
        self.reason = reason


@contextmanager
def name_the_way(way: str) -> Iterator[None]:
    """Around what reads by workers: ``way`` says what the caller can do where one dies."""
    try:
        yield
    except WorkerDied as error:
        raise WorkerDied(error.reason, way) from error


def explain_death(error: BaseException) -> WorkerDied | None:
    """What an error of a loader with workers means, where it means that one of them is gone. An error that a worker
    met, and torch hands on, is another matter."""
    text = str(error)
    if isinstance(error.__cause__, WorkerDied):  # torch asks which it was, and raises another error
        return WorkerDied(error.__cause__.reason)
    handed_over = isinstance(error, EOFError | ConnectionError) and not text.startswith(_HANDED_ON)
    if handed_over or (isinstance(error, RuntimeError) and text.startswith(_DEAD)):
        return WorkerDied(text.partition("\n")[0].strip(" .") or type(error).__name__)
    return None


_DEAD = "DataLoader worker (pid"  # how torch's own errors begin
_HANDED_ON = "Caught "


def hears_of_children() -> bool:
    """Whether this thread may handle the signal that a process has ended: the main one alone, and not on Windows."""
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")


def watch_workers() -> None:
    """Once a loader has begun: torch's handler of SIGCHLD raises a RuntimeError for a dead worker, wherever the main
    thread is just then. From now on that is a :class:`WorkerDied`."""
    if not hears_of_children():
        return
    handler = signal.getsignal(signal.SIGCHLD)
    if callable(handler) and not isinstance(handler, _Explained):
        signal.signal(signal.SIGCHLD, _Explained(handler))


class _Explained:
    def __init__(self, handler: Callable[[int, FrameType | None], object]) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self.handler(number, frame)
        except RuntimeError as error:
            died = explain_death(error)
            if died is None:
                raise
            raise died from error
