"""Targets that leave room for resemblance."""

from __future__ import annotations

import torch

from contralex.plugin import Dictionary, Match, Rows, Step, TargetGenerator, Targets


class SoftInstanceTargets(TargetGenerator):
    """w = λ·[the positive] + (1 − λ)·softmax(k·entries/τ), the softmax being over all entries but the positive.

    k is the query's own key. A target says what the query should find, so no gradient flows through it.
    """

    def __init__(self, fraction: float, temperature: float) -> None:
        super().__init__()
        self.fraction, self.temperature = fraction, temperature

    @torch.no_grad()
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        index = dictionary.positives(queries, match).unsqueeze(1)  # (N, 1)
        own = keys.select_matching(queries, match).vectors  # (N, D)
        scores = dictionary.scores(own).scatter(1, index, float("-inf")) / self.temperature  # (N, P+M)
        # Where a query has no other entry, the softmax is over nothing: its positive takes all.
        weights = self.fraction * torch.softmax(scores, dim=1).nan_to_num()
        return Targets(weights=weights.scatter(1, index, 1 - weights.sum(dim=1, keepdim=True)))
