"""DINO's targets: the teacher's scores, centred against collapse to one prototype, sharpened against the uniform."""

from __future__ import annotations

import torch
from torch import Tensor

from contralex.plugin import (
    Dictionary,
    Match,
    NegativeSource,
    Rows,
    Schedule,
    Step,
    TargetGenerator,
    Targets,
    at_least_float32,
    value_at,
)

_MEAN_SCORES = "mean of the teacher's scores"


class CentredSoftmaxTargets(TargetGenerator):
    """softmax((k·C − c)/τ), where k is the sample's key and C the key side's prototypes (DINO, Eq. 1).

    The centre c follows the mean of k·C over all keys of all processes, after the step (Eq. 4).
    """

    centre: Tensor

    def __init__(
        self, negatives: NegativeSource, temperature: float | Schedule = 0.04, centre_momentum: float = 0.9
    ) -> None:
        super().__init__()
        self.temperature, self.centre_momentum = temperature, centre_momentum
        self.register_buffer("centre", torch.zeros(negatives.require_prototypes("centred_softmax")))

    @torch.no_grad()
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        prototypes = at_least_float32(dictionary.key_shared)  # (K, D)
        if _MEAN_SCORES not in step.cache:  # it is the score of the mean; when update() comes, C has moved
            step.cache[_MEAN_SCORES] = prototypes @ at_least_float32(keys.vectors).mean(dim=0)  # (K,)
        wanted = keys.select_view(match.key)
        rows = queries.find_slice_in(wanted)
        if rows is None:
            return Targets(weights=self._weights(wanted.vectors[queries.index_in(wanted)], prototypes, step))
        name = ("centred_softmax", match.key, rows.start, rows.stop)
        if name not in step.cache:  # all crops that look a key up share its distribution
            step.cache[name] = Targets(weights=self._weights(wanted.vectors[rows], prototypes, step))
        found: Targets = step.cache[name]
        return found

    def _weights(self, keys: Tensor, prototypes: Tensor, step: Step) -> Tensor:
        scores = at_least_float32(keys) @ prototypes.T  # (N, K)
        return torch.softmax((scores - self.centre) / value_at(self.temperature, step.clock), dim=1)

    def update(self, keys: Rows, step: Step) -> None:
        means = [cache[_MEAN_SCORES] for cache in step.caches if _MEAN_SCORES in cache]
        if means:
            self.centre.lerp_(torch.stack(means).mean(dim=0).to(self.centre), 1 - self.centre_momentum)
