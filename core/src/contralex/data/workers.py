"""The processes that read data: how they begin, and that they leave signals to the main process."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from multiprocessing.context import BaseContext

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
