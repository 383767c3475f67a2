"""DeepCluster: a linear classifier that is trained to tell the clusters, and begins anew whenever they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import BuildContext, ContralexError, Dictionary, Match, Rows, Step
from contralex_swav.kmeans import kmeans, whiten
from contralex_swav.memory import Clustered, Clusters

if TYPE_CHECKING:
    from contralex_swav.spec import ClusterClassifier

_STD = 0.01


class Classes(Clustered):
    """Clusters whose scores are a linear layer's, of the query after a ReLU. ``bias`` (K,)."""

    def __init__(self, *, bias: Tensor, **parts: Any) -> None:
        super().__init__(heads=1, **parts)
        self.bias = bias

    def scores(self, queries: Tensor) -> Tensor:
        return super().scores(F.relu(queries)) + self.bias.float()


class Classifier(Clusters):
    """Clusters of whitened embeddings (DeepCluster, sections 3.2 and 4.1), and the layer that is to tell them."""

    def __init__(self, spec: ClusterClassifier, context: BuildContext) -> None:
        super().__init__(spec, context, heads=1)
        if spec.pca is not None and spec.pca > context.dim:
            raise ContralexError(
                f"method.negatives.pca ({spec.pca}) is larger than the {context.dim} numbers of an embedding; "
                f"set it to at most {context.dim}, or to null."
            )
        self.pca = spec.pca
        self.layer = nn.Linear(context.dim, spec.count)
        nn.init.normal_(self.layer.weight, std=_STD)
        nn.init.zeros_(self.layer.bias)

    def cluster(self, head: int, points: Tensor, generator: torch.Generator) -> Tensor:
        white = points if self.pca is None else whiten(points, self.pca)
        _, places = kmeans(white, self.count, self.iterations, generator, spherical=False, empty="split")
        # Clusters have no order that outlives them, so what the layer has learnt of the old ones is of no use.
        weight = self.layer.weight
        weight.copy_(torch.randn(weight.shape, generator=generator) * _STD)
        nn.init.zeros_(self.layer.bias)
        return places

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        return Classes(
            shared=self.layer.weight,
            bias=self.layer.bias,
            assigned=self.assigned[:, queries.sample].T,
            sizes=self.sizes.clone(),
        )


def forget_momentum(optimizer: torch.optim.Optimizer, classifier: Classifier) -> None:
    """Steps of the layer are plain SGD's, as in the official code, which gives it an optimiser without momentum."""
    for parameter in classifier.layer.parameters():
        optimizer.state[parameter].pop("momentum_buffer", None)
