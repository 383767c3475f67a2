"""Ctrl-C and SIGTERM: the first saves at the end of the step, a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# A launcher passes on what the whole job was sent as well, so a process may get one signal twice.
_ECHO = 1.0  # seconds


@contextmanager
def noticed() -> Iterator[Callable[[], int]]:
    """Within, a signal is only noted; what is yielded tells its number, or 0."""
    first: list[tuple[int, float]] = []

    def handler(number: int, frame: FrameType | None) -> None:
        if not first:
            first.append((number, time.monotonic()))
        elif time.monotonic() - first[0][1] > _ECHO:
            print("Stopped at once; the run goes on from its last checkpoint.", file=sys.stderr, flush=True)
            os._exit(128 + number)

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: first[0][0] if first else 0
    finally:
        for number, old in before.items():
            signal.signal(number, old)
