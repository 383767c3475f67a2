"""Checks of what only the device knows, which are read later, so that no step waits for them.

Outside of a training step a check is read at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class LateCheck:
    """A scalar of the device that is true where ``error`` is to be raised."""

    is_wrong: Tensor
    error: Exception


_COLLECTED: ContextVar[list[LateCheck] | None] = ContextVar("checks that are read later", default=None)


def refuse_if(is_wrong: Tensor, error: Exception) -> None:
    """Raise ``error`` where the scalar ``is_wrong`` is true: at once, or within :func:`collect` later."""
    collected = _COLLECTED.get()
    if collected is not None:
        collected.append(LateCheck(is_wrong, error))
    elif bool(is_wrong):
        raise error


@contextmanager
def collect() -> Iterator[list[LateCheck]]:
    """Within, checks are kept in the list, for whoever reads them when their results have arrived on the host."""
    checks: list[LateCheck] = []
    token = _COLLECTED.set(checks)
    try:
        yield checks
    finally:
        _COLLECTED.reset(token)
