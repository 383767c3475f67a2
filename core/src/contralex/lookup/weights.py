"""Weights over a dictionary's entries: all of them as one tensor, or made tile by tile where they would be too many."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


def weigh_by_sample(is_row: Tensor, per_sample: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(N,) the weight of each of ``per_sample`` rows of a sample, with which a mean over all rows is the mean over
    samples of the mean over their rows. ``is_row`` (N,): whether a row stands for something, and is no filling; a
    sample without such rows counts as 0. ``dtype``: of what the weights are multiplied with."""
    rows = is_row.view(-1, per_sample).to(dtype)
    return (rows * per_sample / rows.sum(dim=1, keepdim=True).clamp_min(1)).flatten()


class TiledWeights(ABC):
    """Weights (N, M) of the entries for each query, without a gradient, which are made as they are needed.

    ``shape``: (N, M).
    """

    shape: tuple[int, int]

    @abstractmethod
    def tile(self, rows: slice, columns: slice) -> Tensor:
        """The weights of these queries and entries."""

    @abstractmethod
    def at(self, index: Tensor) -> Tensor:
        """(N,) each query's weight of the entry ``index`` (N,)."""

    @abstractmethod
    def largest(self) -> Tensor:
        """(N,) each query's largest weight."""

    def dense(self) -> Tensor:
        """(N, M) all of them."""
        return self.tile(slice(0, self.shape[0]), slice(0, self.shape[1]))


class DenseWeights(TiledWeights):
    """Weights that exist as a tensor (N, M)."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.shape = (weights.shape[0], weights.shape[1])
        self._largest: Tensor | None = None

    def tile(self, rows: slice, columns: slice) -> Tensor:
        return self.weights[rows, columns]

    def at(self, index: Tensor) -> Tensor:
        return self.weights.gather(1, index.unsqueeze(1)).squeeze(1)

    def largest(self) -> Tensor:
        if self._largest is None:
            self._largest = self.weights.amax(dim=1)
        return self._largest


class GroupWeights(TiledWeights):
    """The weights of a group of entries, ``columns`` of all ``weights``."""

    def __init__(self, weights: TiledWeights, columns: slice) -> None:
        self.weights, self.first = weights, columns.start
        self.shape = (weights.shape[0], columns.stop - columns.start)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        return self.weights.tile(rows, slice(columns.start + self.first, columns.stop + self.first))

    def at(self, index: Tensor) -> Tensor:
        return self.weights.at(index + self.first)

    def largest(self) -> Tensor:
        return self.dense().amax(dim=1)
