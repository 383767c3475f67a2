"""What the matches of a step ask of the same entries, answered once.

Of −Σ w·log softmax = Σ w·log_sum − q·Σ w·entry, the first part belongs to the queries, whatever they are to find, and
the mean entry to the targets, whoever asks. So ten crops that look up two others score the entries ten times, and not
once for each match.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from contralex.compat import times_written
from contralex.lookup import streaming
from contralex.lookup.precision import at_least_float32
from contralex.lookup.streaming import Hidden

_Value = TypeVar("_Value")


class _Scored(NamedTuple):
    """What does not depend on the targets."""

    divided: Tensor
    """(N, D) the queries over the temperature."""
    log_sum: Tensor
    """(N,) log Σ exp(score), in float64 where the device has it."""
    best: Tensor
    """(N,) the entry with the largest score."""


class SharedAnswers:
    """Answers about one table of entries (M, D), in a step's ``cache``. They are about the very tensors that were asked
    about, as they were when they were asked."""

    def __init__(self, cache: dict[Any, Any], entries: Tensor) -> None:
        self._cache, self._entries = cache, entries

    def soft_cross_entropy(
        self, queries: Tensor, weights: Tensor, temperature: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N,) −Σ w·log softmax(scores/temperature), and (N,) the best entry. ``weights`` (N, M) have no gradient."""

        def score() -> _Scored:
            divided = at_least_float32(queries) / temperature
            return _Scored(divided, *streaming.log_sum_exp_and_best(divided, self._entries, Hidden()))

        def average() -> tuple[Tensor, Tensor]:
            return weights.sum(dim=1), weights.to(self._entries.dtype) @ self._entries  # (N,) and (N, D)

        learned = (temperature,) if isinstance(temperature, Tensor) else ()
        scored = self._once(("scores", None if learned else temperature), (queries, *learned), score)
        total, mean = self._once(("mean entry",), (weights,), average)
        picked = streaming.multiply_exactly(scored.divided, mean)
        return (total * scored.log_sum - picked).to(scored.divided.dtype), scored.best

    def _once(self, what: tuple[Any, ...], about: tuple[Tensor, ...], make: Callable[[], _Value]) -> _Value:
        tensors = (*about, self._entries)
        name = (*what, torch.is_grad_enabled(), *((id(each), times_written(each)) for each in tensors))
        if name not in self._cache:
            self._cache[name] = tensors, make()  # with the tensors, whose identity is in the name
        made: _Value = self._cache[name][1]
        return made
