"""DINOv2's targets: the teacher's scores, assigned to the prototypes in equal parts."""

from __future__ import annotations

import torch
from torch import Tensor

from contralex.plugin import (
    Dictionary,
    Match,
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


class PooledSinkhornTargets(TargetGenerator):
    """Sinkhorn-Knopp of exp(k·C/τ) over the keys of all key views and processes, C being the key side's prototypes.

    Where the queries are at positions (hidden patches), the keys at these positions alone take part, and each query's
    weight is 1 over the number of its sample's, so that the loss is a mean over samples.
    """

    compares_samples = False  # sums over the keys are exchanged, and not the keys

    def __init__(self, temperature: float | Schedule = 0.07, iterations: int = 3) -> None:
        super().__init__()
        self.temperature, self.iterations = temperature, iterations

    @torch.no_grad()
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        if _ASSIGNED not in step.cache:  # once for all matches: it is of all key views together
            step.cache[_ASSIGNED] = self._assign(keys, at_least_float32(dictionary.key_shared), step)
        return Targets(weights=step.cache[_ASSIGNED][match.key])

    def _assign(self, keys: Rows, prototypes: Tensor, step: Step) -> dict[int, Tensor]:
        """For each key view the weights (N, K) of this process's queries, in the order of samples and positions."""
        asked = {view: step.queries[step.output].select_view(view) for view in keys.views}
        found = {view: rows.find_in(keys.select_view(view), same_view=False) for view, rows in asked.items()}
        index = torch.cat(list(found.values()))
        vectors = torch.cat([keys.select_view(view).vectors[at.clamp_min(0)] for view, at in found.items()])
        scores = at_least_float32(vectors) @ prototypes.T / value_at(self.temperature, step.clock)
        weights = balance(scores, index >= 0, self.iterations)
        per_sample = next(iter(asked.values())).per_sample
        if per_sample > 1:
            weights *= weigh_by_sample(index >= 0, per_sample, weights.dtype).unsqueeze(1)
        return dict(zip(found, weights.split([len(at) for at in found.values()]), strict=True))


_ASSIGNED = "assigned prototypes"


def balance(scores: Tensor, takes_part: Tensor, iterations: int) -> Tensor:
    """(N, K) exp(scores), scaled until each prototype has an equal part of all rows, over all processes, and each row
    sums to 1; rows that do not take part (N,) are 0."""
    q = scores.exp() * takes_part.unsqueeze(1)
    rows = distributed.sum_over_processes(takes_part.sum().to(q.dtype)).clamp_min(1)
    q /= distributed.sum_over_processes(q.sum()).clamp_min(_TINY)
    for _ in range(iterations):
        q /= distributed.sum_over_processes(q.sum(dim=0)).clamp_min(_TINY) * q.shape[1]
        q /= q.sum(dim=1, keepdim=True).clamp_min(_TINY) * rows
    return q * rows


_TINY = torch.finfo(torch.float32).tiny
