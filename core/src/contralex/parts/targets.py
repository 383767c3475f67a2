"""Target generators of the general vocabulary: the instance itself, or its key as a vector."""

from __future__ import annotations

import torch

from contralex.lookup import Dictionary, Match, Rows, Step, Targets
from contralex.parts.base import TargetGenerator


class Instance(TargetGenerator):
    """The entry that stands for the query's own sample, seen in the matched view, at the same position."""

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        if dictionary.own is not None:  # by convention its positive is entry 0
            return Targets(index=torch.zeros(len(queries), dtype=torch.long, device=queries.vectors.device))
        assert dictionary.rows is not None
        asked = Rows(queries.vectors, queries.sample, torch.full_like(queries.view, match.key), queries.position)
        place = asked.places_in(dictionary.rows, same_view=True)
        if bool((place < 0).any()):
            raise RuntimeError(
                "a query has no positive in its dictionary: the encoder asked for a position that no key has"
            )
        return Targets(index=place)


class KeyVector(TargetGenerator):
    """The sample's own key, as a vector to regress on (BYOL, SimSiam)."""

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        wanted = keys.of_view(match.key)
        return Targets(vectors=wanted.vectors[queries.places_in(wanted, same_view=False)])
