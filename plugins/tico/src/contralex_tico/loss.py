"""TiCo's loss, with a state that follows the queries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import Dictionary, Loss, Rows, Step, Targets, distributed


class TiCoLoss(Loss):
    """1 − ⟨q, k⟩ + ρ·qᵀC q, of unit queries q and keys k (TiCo, Algorithm 1).

    C ← β·C + (1−β)·mean(q qᵀ) over the queries of all processes, this batch's among them, without a gradient. So C is
    the second moment of the queries so far (they are not centred), and stands for all past negatives in D² numbers.

    ``dim``: D. ``weight``: ρ. ``momentum``: β. Buffer: ``covariance`` (D, D), which starts at zero.
    """

    compares_samples = False  # C follows the queries, which are summed over the processes here
    covariance: Tensor

    def __init__(self, dim: int, weight: float = 8.0, momentum: float = 0.9) -> None:
        super().__init__()
        self.weight, self.momentum = weight, momentum
        self.register_buffer("covariance", torch.zeros(dim, dim))

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        asked = queries.vectors
        invariance = 1 - F.cosine_similarity(asked, targets.vectors, dim=1).mean()
        moved = self._moved(asked).to(asked.dtype)
        contrast = ((asked @ moved) * asked).sum(dim=1).mean()
        return invariance + self.weight * contrast

    def follow(self, queries: Rows, keys: Rows, step: Step) -> None:
        self.covariance.copy_(self._moved(queries.vectors))

    @torch.no_grad()
    def _moved(self, queries: Tensor) -> Tensor:
        """(D, D) the moving average with these queries (N, D), of which each process has as many."""
        moment = distributed.mean_over_processes(queries.T @ queries / len(queries))
        return self.momentum * self.covariance + (1 - self.momentum) * moment.to(self.covariance.dtype)
