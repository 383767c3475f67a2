"""Whether losses are finite: computed on the device, and read when the answer has arrived on the host.

So no step waits for a GPU. A bad loss is known a step or so later, and at the latest when a line is logged, an epoch
ends or a checkpoint is due, so that nothing of it is saved.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contralex.lookup import distributed
from contralex.lookup.host_copies import HostCopy
from contralex.lookup.late_checks import LateCheck
from contralex.training.stopping import Stopping


@dataclass(frozen=True, eq=False)
class _Answer:
    """What is on its way to the host of one step: its loss, and a number for each check that is not 0 where it failed.
    ``index``: the step's samples."""

    step: int
    numbers: HostCopy
    index: Tensor
    checks: Sequence[LateCheck]


class LossCheck:
    """Reports a loss of this process that is not finite to ``stopping``."""

    def __init__(self, stopping: Stopping) -> None:
        self._stopping = stopping
        self._answers: deque[_Answer] = deque()

    def add(self, step: int, loss: Tensor, index: Tensor, checks: Sequence[LateCheck]) -> None:
        """``step``: counted from 1. ``index``: of the step's samples, on the host."""
        numbers = loss.detach()
        if checks:
            numbers = torch.stack([numbers.float(), *(check.is_wrong.float() for check in checks)])
        self._answers.append(_Answer(step, HostCopy(numbers), index, checks))

    def read(self, *, wait: bool) -> None:
        """Look at the answers that have arrived, or ``wait`` for all. Raises the error of a check that failed."""
        if wait and self._answers:
            self._answers[-1].numbers.wait()  # the device answers in order, so all that it was asked before is there
        while self._answers and (wait or self._answers[0].numbers.has_arrived):
            self._evaluate(self._answers.popleft())

    def _evaluate(self, answer: _Answer) -> None:
        loss, *failed = answer.numbers.read()
        for check, number in zip(answer.checks, failed, strict=True):
            if number:
                check.error.add_note(f"at step {answer.step}")
                raise check.error
        if not math.isfinite(loss):
            self._stopping.report_bad_loss(_describe(loss, answer.step, answer.index), answer.step)


def _describe(loss: float, step: int, index: Tensor) -> str:
    samples = ", ".join(str(number) for number in index.tolist())
    whose = f" on process {distributed.rank()}" if distributed.world() > 1 else ""
    return f"the loss{whose} is {loss} at step {step}, of the samples {samples}"
