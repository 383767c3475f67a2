"""DeepCluster-v2: centroids of last epoch's embeddings as prototypes, and the softmax over them, head by head."""

from __future__ import annotations

import torch
from torch import Tensor

from contralex.plugin import (
    Dictionary,
    Loss,
    Match,
    Rows,
    Schedule,
    Step,
    StoredIn,
    TargetGenerator,
    Targets,
    TiledWeights,
    distributed,
    value_at,
)
from contralex_swav.kmeans import kmeans
from contralex_swav.memory import ClusterDictionary, ClusterMemory


class SphericalClusters(ClusterMemory):
    """The centroids of spherical k-means in every head, and nothing that is trained.

    The official memory holds what the last epoch saw, in its order (main_deepclusterv2.py, ``train``). Arguments as of
    :class:`ClusterMemory`.
    """

    keeps_old = False
    centroids: Tensor

    def __init__(
        self,
        count: int,
        dim: int,
        dataset_size: int,
        key_views: tuple[int, ...],
        heads: int = 3,
        iterations: int = 10,
        reassign: int = 1,
        dtype: StoredIn = "float32",
    ) -> None:
        super().__init__(count, dim, dataset_size, key_views, heads, iterations, reassign, dtype)
        self.register_buffer("centroids", torch.zeros(heads, count, dim))

    def cluster(self, head: int, points: Tensor, generator: torch.Generator) -> Tensor:
        self.centroids[head], clusters = kmeans(
            points, self.count, self.iterations, generator, spherical=True, empty="keep"
        )
        return clusters

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        return ClusterDictionary(
            shared=self.centroids.flatten(0, 1).clone(),
            heads=self.heads,
            assigned=self.assigned[:, queries.sample].T,
            sizes=self.sizes.clone(),
        )


class ClusterTargets(TargetGenerator):
    """The cluster that the query's sample was put into, in every head: weight 1/H each, and 0 where it is in none.

    ``balanced``: the weight is multiplied by N/(C·n), with n of the N samples in the same cluster and C clusters that
    have any: the expectation is then that of drawing a cluster first, and one of its samples after.
    """

    def __init__(self, balanced: bool = False) -> None:
        super().__init__()
        self.balanced = balanced

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        assert isinstance(dictionary, ClusterDictionary)  # no other negatives give "clusters"
        sizes, cluster = dictionary.sizes, dictionary.assigned.clamp(min=0)  # (H, K) and (N, H)
        weight = (dictionary.assigned >= 0).to(queries.vectors.dtype) / dictionary.heads
        if self.balanced:
            own = sizes.gather(1, cluster.T).T  # (N, H)
            weight = weight * sizes.sum(dim=1) / ((sizes > 0).sum(dim=1) * own).clamp(min=1)
        first = torch.arange(dictionary.heads, device=cluster.device) * sizes.shape[1]  # entry of each head
        return Targets(weights=_OneOfEachHead(cluster + first, weight, sizes.numel()))


class _OneOfEachHead(TiledWeights):
    """A ``weight`` (N, H) on one entry of each head, ``index`` (N, H), and 0 on all others of ``total``."""

    def __init__(self, index: Tensor, weight: Tensor, total: int) -> None:
        self.index, self.weight = index, weight
        self.shape = (len(index), total)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        here = self.index[rows] - columns.start  # (R, H)
        width = columns.stop - columns.start
        is_inside = (here >= 0) & (here < width)
        weights = self.weight.new_zeros(len(here), width)
        return weights.scatter_add_(1, here.clamp(0, width - 1), self.weight[rows] * is_inside)

    def at(self, index: Tensor) -> Tensor:
        return (self.weight * (self.index == index.unsqueeze(1))).sum(dim=1)

    def largest(self) -> Tensor:
        return self.weight.amax(dim=1)


class ClusterCrossEntropy(Loss):
    """−log softmax of the cluster's score among its head's, averaged over heads and over the samples that have one.

    ``temperature`` (above 0) divides the scores, and may be a schedule.
    """

    def __init__(self, temperature: float | Schedule) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        assert isinstance(dictionary, ClusterDictionary)
        temperature = value_at(self.temperature, step.clock)
        weights = targets.tiled_weights
        loss = dictionary.soft_cross_entropy(queries.vectors, weights, temperature, groups=dictionary.heads)
        # How many have a cluster differs from process to process, and the mean is over those of all.
        known = distributed.mean_over_processes((weights.largest() > 0).sum().to(loss.dtype))
        return loss.sum() / known.clamp(min=1 / distributed.world())
