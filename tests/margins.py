"""Figures that count, such as how many look-ups found their target, compared between two computations of the same.

A count is a step function of its scores: where the two best are equal to rounding either may win, and which one does
changes with the number of processes, of threads, and the version of torch. So a test that compares counts asks how many
rows rounding could have decided, and allows that many to differ; all others must agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from contralex.lookup import distributed, question
from contralex.lookup.dictionary import Dictionary
from contralex.lookup.values import Match, Rows, Targets

CLOSE = 1e-4  # two scores that are nearer are equal to rounding: ten times the tests' bound on losses


def margins(scores: Tensor) -> Tensor:
    """(N,) how far the best of each row of (N, C) scores is above the second."""
    if scores.shape[1] == 1:
        return torch.full((len(scores),), torch.inf)
    best, second = scores.topk(2, dim=1).values.unbind(dim=1)
    return best - second


@contextmanager
def undecided(into: list[float], close: float = CLOSE) -> Iterator[None]:
    """Adds to ``into`` which fraction of the look-ups within, over all processes, rounding may have decided."""
    counted, found = _Undecided(close), question._measure_accuracy

    def watched(queries: Rows, keys: Rows, dictionary: Dictionary, targets: Targets, match: Match) -> Tensor:
        if targets.has_weights or not targets.has_vectors:  # the dictionary may have answered during the loss
            counted.add(dictionary.scores(queries.vectors))
            if targets.has_weights:
                counted.add_weights(targets.weights)
            return found(queries, keys, dictionary, targets, match)
        with counted:
            return found(queries, keys, dictionary, targets, match)

    with mock.patch.object(question, "_measure_accuracy", watched):
        yield
    into.append(float(distributed.mean_over_processes(torch.tensor(counted.close / counted.rows))))


def same_counts(found: Sequence[Tensor], expected: Sequence[Tensor], undecided: Sequence[float]) -> None:
    """Fractions of look-ups are equal, but for as many as rounding may have decided."""
    for mine, theirs, loose in zip(found, expected, undecided, strict=True):
        assert abs(float(mine) - float(theirs)) <= loose + 1e-6, f"{float(mine)} is not {float(theirs)} ± {loose}"


class _Undecided(TorchFunctionMode):
    """Counts rows whose best entry or largest weight is one by less than ``limit``; within, those of ``argmax``."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit
        self.rows = self.close = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is Tensor.argmax and (kwargs or {}).get("dim") == 1:
            self.add(args[0])
        return function(*args, **(kwargs or {}))

    def add(self, scores: Tensor) -> None:
        self.rows += len(scores)
        self.close += int((~(margins(scores) >= self.limit)).sum())  # NaN, of two that are masked, is no margin

    def add_weights(self, weights: Tensor) -> None:
        apart = margins(weights)
        self.close += int(((apart > 0) & (apart < self.limit)).sum())  # what is meant to be equal is so to the bit
