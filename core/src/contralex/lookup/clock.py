"""Where training stands, and numbers that change over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Clock:
    """Where training stands: ``step`` of ``total`` optimiser steps, ``per_epoch`` of them in one epoch.

    >>> import contralex
    >>> contralex.Clock(step=150, total=1000, per_epoch=100).epoch
    1
    """

    step: int
    total: int
    per_epoch: int

    @property
    def epoch(self) -> int:
        return self.step // self.per_epoch

    def at(self, per: str) -> float:
        """Time in epochs; whole epochs only where a paper's code changes its value once an epoch."""
        return float(self.epoch) if per == "epoch" else self.step / self.per_epoch


class Schedule(Protocol):
    """A number that changes over training: a pure function of the clock."""

    def value(self, clock: Clock) -> float:
        """The value at this moment of the run."""
        ...


def value_at(number: float | Schedule, clock: Clock) -> float:
    """The value of a number or of a schedule at this moment of the run."""
    return float(number) if isinstance(number, int | float) else number.value(clock)
