"""DenseCL's match of places, in a queue of its own and for dictionaries that hold places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import (
    Dictionary,
    Match,
    Placement,
    QueueSource,
    Rows,
    Step,
    StoredIn,
    TargetGenerator,
    Targets,
)


def move_to_best_place(queries: Rows, keys: Rows, match: Match, step: Step, output: str | None) -> Rows:
    """The queries, each tagged with the position of the key that matches it best (DenseCL, Eq. 3): the place of the
    matched view of its own image with the largest cosine. Several queries may meet in one place.

    ``output``: the output of the encoder whose vectors are compared; None: these very queries and keys.
    """
    asking = queries if output is None else step.queries[output].select_view(match.query)
    found = (keys if output is None else step.keys[output]).select_view(match.key)
    with torch.no_grad():
        mine = asking.vectors.unflatten(0, (-1, asking.per_sample))  # (B, P, F)
        sample = asking.sample[:: asking.per_sample]
        first = Rows.from_view(mine[:, :1], sample, match.query)
        begins = first.index_in(found) // found.per_sample
        places = F.normalize(found.vectors, dim=1).unflatten(0, (-1, found.per_sample))[begins]  # (B, Q, F)
        best = (mine @ places.mT).argmax(dim=2)  # (B, P)
    return Rows.from_view(queries.vectors.unflatten(0, best.shape), sample, match.query, best)


class PlaceQueue(QueueSource):
    """A queue of one vector for each image, beside each query's positive: the key of the place that matches it best
    (DenseCL, sections 3.2 and 3.3).

    ``match``: the output of the encoder whose vectors say which places match, the backbone's map in DenseCL; None: the
    look-up's own. ``pooled``: the output whose keys enter the queue; None: the mean of an image's keys, of unit length.
    The others are the queue's, whose buffers it has.
    """

    compares_samples = False  # a query meets its own image's keys; what enters the queue is gathered here

    def __init__(
        self,
        size: int,
        dim: int,
        match: str | None = None,
        pooled: str | None = None,
        placement: Placement = "replicated",
        dtype: StoredIn = "float32",
    ) -> None:
        super().__init__(size, dim, placement, dtype)
        self.match, self.pooled = match, pooled
        self.reads = tuple(name for name in (match, pooled) if name is not None)

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        return super().forward(move_to_best_place(queries, keys, match, step, self.match), keys, match, step)

    def follow(self, queries: Rows, keys: Rows, step: Step) -> None:
        entering = [self._gather_entering(look_up, keys.views) for look_up in step.look_ups or (step,)]
        self.update(Rows.join_batches(entering), step)

    def _gather_entering(self, step: Step, views: Sequence[int]) -> Rows:
        """What one look-up adds, of every process: look-ups that are gathered one by one are in the order that one
        process would have."""
        keys = step.keys[self.pooled or step.output].select_views(views)
        entering = self._pool(keys) if self.pooled is None else keys
        asked = step.queries[step.output]
        queries = asked.select_view(asked.views[0])
        are_own = len(entering) == len(queries) // queries.per_sample * len(views)
        return entering.gather(gradient=False) if are_own else entering

    def _pool(self, keys: Rows) -> Rows:
        """The mean of each image's keys in each view, of unit length."""
        means: dict[int, tuple[Tensor, Tensor | None]] = {}
        for view in keys.views:
            places = keys.select_view(view)
            mean = places.vectors.unflatten(0, (-1, places.per_sample)).mean(dim=1)
            means[view] = (F.normalize(mean, dim=1), None)
            sample = places.sample[:: places.per_sample]
        return Rows.from_views(means, sample)


class BestPlaceTargets(TargetGenerator):
    """The entry of the place that matches the query best in the matched view of its own image (DenseCL, Eq. 3).

    ``match``: the output of the encoder whose vectors say which places match; None: the look-up's own.
    """

    compares_samples = False

    def __init__(self, match: str | None = None) -> None:
        super().__init__()
        self.match = match
        self.reads = () if match is None else (match,)

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        return Targets(index=dictionary.positives(move_to_best_place(queries, keys, match, step, self.match), match))
