"""Losses on the statistics of the whole batch, over all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import Dictionary, Loss, Rows, Step, Targets, distributed
from contralex_barlow.places import LocatedTargets


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
        correlation = distributed.sum_over_processes(one.T @ other) / (len(one) * distributed.world())  # (D, D)
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
            variance, covariance = _measure_spread(side, self.spread)
            loss = loss + self.variance * variance / 2 + self.covariance * covariance
        return loss


class LocalVICRegLoss(VICRegLoss):
    """VICReg of matched places: λ·mse(z, z') + μ·[v(z) + v(z')]/2 + ν·[c(z) + c(z')]/2, with v and c of each slot over
    the batch of all processes, and their means over the slots (VICRegL, arXiv:2210.01571, section 3; code:
    main_vicregl.py, ``_vicreg_loss``).

    The s-th slot holds the s-th pair of each image. The pairs of an image stand in the order of the queries' places:
    all of them, or with ``keep`` the closest (VICRegL's γ), by what they were matched by: their vectors, or where they
    lie in the image. An image with fewer places keeps all.
    """

    compares_samples = False  # the keys of other samples enter by statistics, which are summed over the processes here

    def __init__(
        self,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        spread: float = 1.0,
        keep: int | None = None,
    ) -> None:
        super().__init__(invariance, variance, covariance, spread)
        self.keep = keep

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        places = queries.per_sample
        pairs = torch.stack([queries.vectors, targets.vectors]).unflatten(1, (-1, places))  # (2, B, P, D)
        if self.keep is not None and self.keep < places:
            pairs = _keep_closest(pairs, _distances(pairs, targets), self.keep)
        loss = self.invariance * F.mse_loss(pairs[0], pairs[1])
        for side in pairs:
            variance, covariance = _measure_spread(side.transpose(0, 1), self.spread)
            loss = loss + (self.variance * variance + self.covariance * covariance) / 2
        return loss


def _distances(pairs: Tensor, targets: Targets) -> Tensor:
    """(B, P) how far the two of each pair are from each other."""
    if isinstance(targets, LocatedTargets):
        return targets.distances.view(pairs.shape[1:3])
    with torch.no_grad():
        return (pairs[0] - pairs[1]).square().sum(dim=2)


def _keep_closest(pairs: Tensor, distances: Tensor, keep: int) -> Tensor:
    """(2, B, P, D) queries and what they were matched with, to (2, B, ``keep``, D): the closest of each sample, in the
    order in which they stood."""
    kept = distances.argsort(dim=1, stable=True)[:, :keep].sort(dim=1).values  # (B, keep)
    return pairs.take_along_dim(kept[None, :, :, None], dim=2)


def _measure_spread(vectors: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    """VICReg's v and c of vectors (N, D), over those of all processes; of (S, N, D), their means over the S slots."""
    centred = vectors - distributed.mean_over_processes(vectors.mean(dim=-2, keepdim=True))
    samples = vectors.shape[-2] * distributed.world()
    covariance = distributed.sum_over_processes(centred.mT @ centred) / max(samples - 1, 1)  # (..., D, D)
    deviation = (covariance.diagonal(dim1=-2, dim2=-1) + 1e-4).sqrt()
    overlap = _off_diagonal(covariance).square().sum(dim=(-2, -1)) / vectors.shape[-1]
    return F.relu(spread - deviation).mean(), overlap.mean()


def _standard(vectors: Tensor) -> Tensor:
    """(N, D) with mean 0 and variance 1 over the batch of all processes: BatchNorm without scale and shift."""
    mean = distributed.mean_over_processes(vectors.mean(dim=0))
    variance = distributed.mean_over_processes((vectors - mean).square().mean(dim=0))
    return (vectors - mean) * torch.rsqrt(variance + 1e-5)


def _off_diagonal(square: Tensor) -> Tensor:
    return square - torch.diag_embed(square.diagonal(dim1=-2, dim2=-1))
