"""What the sample's key resembles."""

from __future__ import annotations

import torch

from contralex.plugin import Dictionary, Match, Rows, Step, TargetGenerator, Targets


class RelationTargets(TargetGenerator):
    """softmax(k·entries/τ_t) over the entries of other samples (k is the query's own key), and the positive's index.

    A target says what the query should find, so no gradient flows through it.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    @torch.no_grad()
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        index = dictionary.positives(queries, match)
        own = keys.select_matching(queries, match).vectors  # (N, D)
        scores = dictionary.scores(own).scatter(1, index.unsqueeze(1), float("-inf"))  # (N, P+M)
        # Where a query has no other entry, the softmax is over nothing, and there is no relation.
        weights = torch.softmax(scores / self.temperature, dim=1).nan_to_num()
        return Targets(index=index, weights=weights)
