"""A process that another one of ours started ends when that one is gone, however it ended.

The launcher may be killed so that it can tell nobody. Its processes see that they have another parent, and stop as if
they had got SIGTERM: a run saves its checkpoint.
"""

from __future__ import annotations

import os
import signal
import threading
import time

VARIABLE = "CONTRALEX_PARENT"  # the number of the process to follow
_EVERY = 0.5  # seconds
_PATIENCE = 60.0  # seconds, for the end of a step and a checkpoint


def child_environment() -> dict[str, str]:
    """For a process that is to follow this one."""
    return {**os.environ, VARIABLE: str(os.getpid())}


def follow_parent() -> None:
    """Watches the process that started this one, where it asked for that."""
    parent = os.environ.pop(VARIABLE, "")
    if parent.isdecimal() and os.name != "nt":  # on Windows the parent's number stays, though it is gone
        threading.Thread(target=_watch, args=(int(parent),), daemon=True, name="parent").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE)
    os._exit(128 + signal.SIGTERM)
