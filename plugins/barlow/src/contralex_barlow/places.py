"""VICRegL's match of places."""

from __future__ import annotations

import torch
from torch import Tensor

from contralex.plugin import Dictionary, Match, Rows, Step, TargetGenerator, Targets


class NearestPlaceTargets(TargetGenerator):
    """The vector of the place that lies nearest to the query, by the distance of their vectors, among the places of the
    matched view of its own image (VICRegL, arXiv:2210.01571, section 3, the feature-based match).

    Several queries may meet in one place. Where keys have a gradient, the places that were found have it.
    """

    compares_samples = False

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        asked = queries.vectors.unflatten(0, (-1, queries.per_sample))  # (B, P, D)
        places = _places_of_own_image(queries, keys.select_view(match.key), match)  # (B, Q, D)
        with torch.no_grad():  # |q|² is the same for all places
            distances = places.square().sum(dim=2).unsqueeze(1) - 2 * (asked @ places.mT)  # (B, P, Q)
            nearest = distances.argmin(dim=2)
        return Targets(vectors=places.take_along_dim(nearest.unsqueeze(2), dim=1).flatten(0, 1))


def _places_of_own_image(queries: Rows, found: Rows, match: Match) -> Tensor:
    """(B, Q, D) the keys ``found``, of one view, of each query's own sample."""
    per_sample = found.per_sample
    first = Rows.from_view(queries.vectors[:: queries.per_sample], queries.sample[:: queries.per_sample], match.query)
    by_sample: Tensor = found.vectors.unflatten(0, (-1, per_sample))
    return by_sample[first.index_in(found) // per_sample]
