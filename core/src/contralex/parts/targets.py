"""Target generators of the general vocabulary: the instance itself, or its key as a vector."""

from __future__ import annotations

from contralex.lookup import Dictionary, Match, Rows, Step, Targets
from contralex.parts.base import TargetGenerator


class Instance(TargetGenerator):
    """The entry that stands for the query's own sample, seen in the matched view, at the same position."""

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        return Targets(index=dictionary.positives(queries, match))


class KeyVector(TargetGenerator):
    """The sample's own key, as a vector to regress on (BYOL, SimSiam)."""

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        wanted = keys.of_view(match.key)
        return Targets(vectors=wanted.vectors[queries.partners_in(wanted)])
