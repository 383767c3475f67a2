"""Losses on the statistics of the whole batch, over all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import Dictionary, Loss, Rows, Step, Targets, distributed


class CrossCorrelationLoss(Loss):
    """Σ_i (1 − C_ii)² + λ·Σ_{i≠j} C_ij², with C = BN(z_a)ᵀ BN(z_b) / B (Barlow Twins, Eqs. 1 and 2).

    Statistics are summed over the processes with gradient. (The official code's ``all_reduce`` has none, so on W
    processes it trains with 1/W of the gradient.)
    """

    def __init__(self, weight: float = 0.0051) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        one, other = _standard(queries.vectors), _standard(targets.vectors)  # (N, D)
        correlation = distributed.sum_over_processes(one.T @ other) / _samples(one)  # (D, D)
        on = (1 - correlation.diagonal()).square().sum()
        return on + self.weight * _off_diagonal(correlation).square().sum()


class VICRegLoss(Loss):
    """λ·mse(z, z') + μ·[v(z) + v(z')]/2 + ν·[c(z) + c(z')] (VICReg, Eq. 6), with
    v = mean_j max(0, γ − √(Var(z_j) + 1e-4)) and c = Σ_{i≠j} Cov(z)_ij² / D, over the batch of all processes.

    The paper's Eq. 6 adds the two v; its code takes their mean, as here.
    """

    def __init__(
        self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0, spread: float = 1.0
    ) -> None:
        super().__init__()
        self.invariance, self.variance, self.covariance = invariance, variance, covariance
        self.spread = spread

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        loss = self.invariance * F.mse_loss(queries.vectors, targets.vectors)
        for side in (queries.vectors, targets.vectors):
            loss = loss + self._one_side(side)
        return loss

    def _one_side(self, vectors: Tensor) -> Tensor:
        centred = vectors - distributed.mean_over_processes(vectors.mean(dim=0))
        covariance = distributed.sum_over_processes(centred.T @ centred) / max(_samples(vectors) - 1, 1)  # (D, D)
        deviation = (covariance.diagonal() + 1e-4).sqrt()
        variance_term = F.relu(self.spread - deviation).mean()
        covariance_term = _off_diagonal(covariance).square().sum() / vectors.shape[1]
        return self.variance * variance_term / 2 + self.covariance * covariance_term


def _standard(vectors: Tensor) -> Tensor:
    """(N, D) with mean 0 and variance 1 over the batch of all processes: BatchNorm without scale and shift."""
    mean = distributed.mean_over_processes(vectors.mean(dim=0))
    variance = distributed.mean_over_processes((vectors - mean).square().mean(dim=0))
    return (vectors - mean) * torch.rsqrt(variance + 1e-5)


def _samples(vectors: Tensor) -> int:
    return len(vectors) * distributed.world()


def _off_diagonal(square: Tensor) -> Tensor:
    return square - torch.diag(square.diagonal())
