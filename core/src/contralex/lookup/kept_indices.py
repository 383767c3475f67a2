"""Tensors of whole numbers that depend on nothing but how rows lie: made once, and known again.

A step asks for the same indices as the step before it. A kept tensor is shared by all that ask for it, so nobody may
write it; one that was written all the same is not given again. Which numbers it holds is known by which tensor it is,
so that the host need not read them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from contralex.compat import times_written

_MOST = 256  # tensors, after which all are forgotten
_LARGEST = 2**20  # numbers of a tensor that is kept

_Meaning = tuple[Any, ...]
_TENSORS: dict[_Meaning, Tensor] = {}
_MEANINGS: dict[int, tuple[Tensor, _Meaning]] = {}


def make_range(start: int, stop: int, device: torch.device) -> Tensor:
    """The numbers from ``start`` up to ``stop``, which :func:`find_range` knows again."""
    return _keep(("range", start, stop, device), stop - start, lambda: torch.arange(start, stop, device=device))


def make_constant(value: int, count: int, device: torch.device) -> Tensor:
    """One number ``count`` times, which :func:`find_constant` knows again."""

    def make() -> Tensor:
        return torch.full((count,), value, device=device, dtype=torch.long)

    return _keep(("constant", value, count, device), count, make)


def make_runs(runs: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """Numbers, each as often as is said beside it."""
    if len(runs) == 1:
        return make_constant(*runs[0], device)
    count = sum(times for _, times in runs)

    def make() -> Tensor:
        return torch.cat([torch.full((times,), value, device=device, dtype=torch.long) for value, times in runs])

    return _keep(("runs", *runs, device), count, make)


def make_positions(counts: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """0, 1, ... P-1 for each of B samples, after one another for each pair of B and P."""
    if all(positions == 1 for _, positions in counts):
        return make_constant(0, sum(samples for samples, _ in counts), device)
    count = sum(samples * positions for samples, positions in counts)

    def make() -> Tensor:
        parts = [torch.arange(positions, device=device).repeat(samples) for samples, positions in counts]
        return torch.cat(parts)

    return _keep(("positions", *counts, device), count, make)


def find_range(index: Tensor) -> tuple[int, int] | None:
    """The start and the stop of a kept range; None of any other tensor."""
    meaning = _find(index)
    return (meaning[1], meaning[2]) if meaning is not None and meaning[0] == "range" else None


def find_constant(index: Tensor) -> int | None:
    """The number of a kept constant; None of any other tensor."""
    meaning = _find(index)
    return meaning[1] if meaning is not None and meaning[0] == "constant" else None


def find_bounds(index: Tensor) -> tuple[int, int] | None:
    """The smallest and the largest number of a kept range or constant that is not empty; None of any other tensor."""
    meaning = _find(index)
    if meaning is None or meaning[0] not in ("range", "constant") or not index.shape[0]:
        return None
    return (meaning[1], meaning[2] - 1) if meaning[0] == "range" else (meaning[1], meaning[1])


def _find(index: Tensor) -> _Meaning | None:
    known = _MEANINGS.get(id(index))
    return known[1] if known is not None and known[0] is index and not times_written(index) else None


def _keep(meaning: _Meaning, count: int, make: Callable[[], Tensor]) -> Tensor:
    kept = _TENSORS.get(meaning)
    if kept is not None and not times_written(kept):
        return kept
    with torch.inference_mode(False):  # one that is made in it could not be saved for a backward later
        made = make()
    if count > _LARGEST or type(made) is not Tensor:
        return made
    if len(_TENSORS) >= _MOST:
        _TENSORS.clear()
        _MEANINGS.clear()
    _TENSORS[meaning] = made
    _MEANINGS[id(made)] = made, meaning
    return made
