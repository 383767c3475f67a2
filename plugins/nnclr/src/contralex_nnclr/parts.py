"""NNCLR's targets and its loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import (
    Dictionary,
    Loss,
    Match,
    Rows,
    Schedule,
    Step,
    TargetGenerator,
    Targets,
    at_least_float32,
    distributed,
    value_at,
    write_to_ring,
)


class NeighbourTargets(TargetGenerator):
    """NN(z, Q) = the vector of the support set Q that is nearest to the key z (NNCLR, Eq. 4).

    Q holds the last keys of the first key view, of every process, first in, first out. It is written after the
    look-up, or each key would be its own neighbour. It starts as random unit vectors.
    """

    support: Tensor
    pointer: Tensor

    def __init__(self, size: int, dim: int, key_views: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size
        self.view = key_views[0]
        self.register_buffer("support", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        mine = keys.select_matching(queries, match).vectors  # (N, D)
        nearest = Dictionary(stored=self.support).find_best(mine)  # of unit vectors
        return Targets(vectors=self.support[nearest])

    def update(self, keys: Rows, step: Step) -> None:
        written = write_to_ring(self.support, keys.select_view(self.view).vectors, self.pointer)
        self.pointer.copy_((self.pointer + written) % self.size)


class NeighbourNCELoss(Loss):
    """−log exp(NN_i·p_i/τ) / Σ_k exp(NN_i·p_k/τ), p the queries of every process (NNCLR, Eq. 3).

    The target asks and the queries answer, so the gradient flows through all of them. Symmetric, p_i also asks all
    neighbours, and the loss is the mean of both.
    """

    def __init__(self, temperature: float | Schedule, symmetric: bool = True) -> None:
        super().__init__()
        self.temperature = temperature
        self.symmetric = symmetric

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        temperature = value_at(self.temperature, step.clock)
        everyone = at_least_float32(distributed.gather(queries.vectors, gradient=True))  # (W·N, D)
        own = torch.arange(len(everyone), device=everyone.device)[distributed.own_slice(len(queries))]
        loss = Dictionary(shared=everyone).cross_entropy(targets.vectors, own, temperature).mean()
        if not self.symmetric:
            return loss
        neighbours = at_least_float32(distributed.gather(targets.vectors, gradient=False))  # (W·N, D)
        return (loss + Dictionary(shared=neighbours).cross_entropy(queries.vectors, own, temperature).mean()) / 2
