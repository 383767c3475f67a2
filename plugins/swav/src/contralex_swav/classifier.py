"""DeepCluster: a linear classifier that is trained to tell the clusters, and begins anew whenever they do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import ContralexError, Dictionary, Match, Rows, Step, StoredIn, remedy
from contralex_swav.kmeans import kmeans, whiten
from contralex_swav.memory import ClusterDictionary, ClusterMemory

_STD = 0.01


class ClassDictionary(ClusterDictionary):
    """Clusters whose scores are a linear layer's, of the query after a ReLU. ``bias`` (K,)."""

    def __init__(self, *, bias: Tensor, **parts: Any) -> None:
        super().__init__(heads=1, **parts)
        self.bias = bias

    def scores(self, queries: Tensor) -> Tensor:
        scores = super().scores(F.relu(queries))
        return scores + self.bias.to(scores.dtype)


class ClusterClassifier(ClusterMemory):
    """Clusters of whitened embeddings (DeepCluster, sections 3.2 and 4.1), and the layer that is to tell them.

    ``pca``: the principal components that are clustered; None: the embeddings as they are. Other arguments as of
    :class:`ClusterMemory`.
    """

    def __init__(
        self,
        count: int,
        dim: int,
        dataset_size: int,
        key_views: tuple[int, ...],
        pca: int | None = 256,
        iterations: int = 20,
        reassign: int = 1,
        dtype: StoredIn = "float32",
    ) -> None:
        super().__init__(count, dim, dataset_size, key_views, 1, iterations, reassign, dtype)
        if pca is not None and pca > dim:
            raise ContralexError(
                f"method.negatives.pca ({pca}) is larger than the {dim} dimensions of an embedding. Try:"
                + remedy("--set", f"method.negatives.pca={dim}")
            )
        self.pca = pca
        self.layer = nn.Linear(dim, count)
        nn.init.normal_(self.layer.weight, std=_STD)
        nn.init.zeros_(self.layer.bias)

    def cluster(self, head: int, points: Tensor, generator: torch.Generator) -> Tensor:
        white = points if self.pca is None else whiten(points, self.pca)
        _, clusters = kmeans(white, self.count, self.iterations, generator, spherical=False, empty="split")
        # Clusters have no order that outlives them, so what the layer has learnt of the old ones is of no use.
        weight = self.layer.weight
        weight.copy_(torch.randn(weight.shape, generator=generator) * _STD)
        nn.init.zeros_(self.layer.bias)
        return clusters

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        return ClassDictionary(
            shared=self.layer.weight,
            bias=self.layer.bias,
            assigned=self.assigned[:, queries.sample].T,
            sizes=self.sizes.clone(),
        )


def forget_momentum(optimizer: torch.optim.Optimizer, classifier: ClusterClassifier) -> None:
    """Make the layer's steps plain SGD's, as in the official code, which gives it an optimiser without momentum."""
    for parameter in classifier.layer.parameters():
        optimizer.state[parameter].pop("momentum_buffer", None)
