"""VICRegL's matches of places: by their vectors, and by where they lie in the image."""

from __future__ import annotations

import torch
from torch import Tensor

from contralex.plugin import ContralexError, Dictionary, Match, Rows, Step, TargetGenerator, Targets


class LocatedTargets(Targets):
    """The vectors of places that were found by where they lie, and how far from the queries that is."""

    def __init__(self, vectors: Tensor, distances: Tensor) -> None:
        super().__init__(vectors=vectors)
        self.distances = distances
        """(N,) in pixels of the image."""


class NearestPlaceTargets(TargetGenerator):
    """The vector of the place that lies nearest to the query, among the places of the matched view of its own image:
    by the distance of their vectors, or by that of their ``coordinates`` in the image, the output of the encoder that
    has them (VICRegL, arXiv:2210.01571, section 3, the feature-based and the location-based match).

    Several queries may meet in one place. Where keys have a gradient, the places that were found have it.
    """

    compares_samples = False

    def __init__(self, coordinates: str | None = None) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.reads = () if coordinates is None else (coordinates,)

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        places = _places_of_own_image(queries, keys.select_view(match.key), match)  # (B, Q, D)
        with torch.no_grad():
            if self.coordinates is None:
                nearest = _compare(_by_sample(queries), places).argmin(dim=2)  # (B, P)
            else:
                distances, nearest = self._locate(self.coordinates, queries, match, step).min(dim=2)
        vectors = places.take_along_dim(nearest.unsqueeze(2), dim=1).flatten(0, 1)
        return Targets(vectors=vectors) if self.coordinates is None else LocatedTargets(vectors, distances.flatten())

    def _locate(self, coordinates: str, queries: Rows, match: Match, step: Step) -> Tensor:
        """(B, P, Q) how far each place of the key view lies from each query, in pixels of their image."""
        asked = _by_sample(step.queries[coordinates].select_view(match.query))  # (B, P, 2)
        found = _places_of_own_image(queries, step.keys[coordinates].select_view(match.key), match)  # (B, Q, 2)
        if asked.shape[1:] != (queries.per_sample, 2):
            raise ContralexError(
                f"nearest_place reads {coordinates} as the coordinates of {queries.per_sample} places, and it has "
                f"{asked.shape[1]} rows of {asked.shape[2]} numbers for each image;"
                " name an output that reads coordinates."
            )
        # Differences, and no products: coordinates of large photographs would cancel in float32.
        return torch.cdist(asked, found, compute_mode="donot_use_mm_for_euclid_dist")


def _compare(asked: Tensor, places: Tensor) -> Tensor:
    """(B, P, Q) the squared distances of vectors (B, P, D) and (B, Q, D), without |q|², which is one for all places."""
    return places.square().sum(dim=2).unsqueeze(1) - 2 * (asked @ places.mT)


def _by_sample(rows: Rows) -> Tensor:
    """(B, P, D) the rows of one view."""
    vectors: Tensor = rows.vectors.unflatten(0, (-1, rows.per_sample))
    return vectors


def _places_of_own_image(queries: Rows, found: Rows, match: Match) -> Tensor:
    """(B, Q, D) the keys ``found``, of one view, of each query's own sample."""
    first = Rows.from_view(queries.vectors[:: queries.per_sample], queries.sample[:: queries.per_sample], match.query)
    return _by_sample(found)[first.index_in(found) // found.per_sample]
