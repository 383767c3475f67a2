"""iBOT's targets: what the teacher says of the patches that are hidden from the student."""

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
    distributed,
    value_at,
    weigh_by_sample,
)

_MEAN_SCORES = "mean of the teacher's scores of patches"


class CentredPatchTargets(TargetGenerator):
    """softmax((k·C − c)/τ), where k is the teacher's vector at the place of a hidden patch and C the key side's
    prototypes (iBOT, Eq. 2). A patch of an image in which m are hidden has the weight 1/m, so that the loss is a mean
    over images; in one without any, nothing is to be found.

    The centre c follows the mean of k·C over *all* patches of all processes, after the step.
    """

    compares_samples = False  # the mean over patches is exchanged, and not the patches
    centre: Tensor

    def __init__(
        self, negatives: NegativeSource, temperature: float | Schedule = 0.04, centre_momentum: float = 0.9
    ) -> None:
        super().__init__()
        self.temperature, self.centre_momentum = temperature, centre_momentum
        self.register_buffer("centre", torch.zeros(negatives.require_prototypes("centred_patches")))

    @torch.no_grad()
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        prototypes = at_least_float32(dictionary.key_shared)  # (K, D)
        if _MEAN_SCORES not in step.cache:  # it is the score of the mean; when update() comes, C has moved
            mean = distributed.mean_over_processes(at_least_float32(keys.vectors).mean(dim=0))
            step.cache[_MEAN_SCORES] = prototypes @ mean  # (K,)
        wanted = keys.select_view(match.key)
        index = queries.find_in(wanted, same_view=False)
        scores = at_least_float32(wanted.vectors[index.clamp_min(0)]) @ prototypes.T  # (N, K)
        weights = torch.softmax((scores - self.centre) / value_at(self.temperature, step.clock), dim=1)
        weights *= weigh_by_sample(index >= 0, queries.per_sample, weights.dtype).unsqueeze(1)
        return Targets(weights=weights)

    def update(self, keys: Rows, step: Step) -> None:
        means = [cache[_MEAN_SCORES] for cache in step.caches if _MEAN_SCORES in cache]
        if means:
            self.centre.lerp_(torch.stack(means).mean(dim=0).to(self.centre), 1 - self.centre_momentum)
