"""The specs of SwAV's target generator, and of the parts of both DeepClusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator

from contralex.plugin import Delay, Least, Slot, Spec, StoredIn, Temperature


class CodeQueue(Spec):
    """The last embeddings of each key view, with which prototypes are shared out where the batch is small.

    It is filled from epoch ``start_epoch`` on, and used as soon as it is full.
    """

    size: int = Field(gt=0, le=2**30)
    """Embeddings of each key view, over all processes."""
    start_epoch: int = Field(0, ge=0, le=10**6)
    """The epoch, counted from 0, from which the queue is filled."""

    def delays(self) -> list[Delay]:
        # A queue that begins early holds codes back, so a short run may well wait for longer than the paper's 4 %.
        queue = Delay(
            "start_epoch", self.start_epoch, "until then the queue is empty and codes are the batch's", most=0.3
        )
        return [queue] if self.start_epoch else []


class SinkhornSpec(Spec):
    """Codes: the key's scores over the prototypes, shared out equally among them over the whole batch."""

    kind: Literal["sinkhorn"] = "sinkhorn"
    builds = ".sinkhorn:SinkhornTargets"
    epsilon: float = Field(0.05, ge=1e-4, le=1e3)
    """Sharpens the codes: lower is sharper. Try .03 where the loss stays at ln(count)."""
    iterations: int = Field(3, gt=0, le=10_000)
    """Rounds of row and column normalisation."""
    queue: CodeQueue | None = None
    """Earlier embeddings that codes are computed with, for batches much smaller than the number of prototypes; null:
    none."""
    needs = {"negatives": frozenset({"prototypes"})}
    gives = frozenset({"weights"})
    source = "SwAV, arXiv:2006.09882, Eqs. 3-5 and section 4.1 (queue); code: main_swav.py distributed_sinkhorn"
    example = {"queue": {"size": 12}}

    def least(self, offers: Mapping[str, frozenset[str]]) -> list[Least]:
        return [Least("batch", 2, "codes share prototypes out among the samples")]


class ClusterMemorySpec(Spec):
    """What negative sources share that cluster a memory of all samples at the first step of an epoch."""

    count: int = Field(gt=1, le=2**24)
    """Clusters of each head."""
    iterations: int = Field(gt=0, le=10_000)
    """Rounds of k-means."""
    reassign: int = Field(1, gt=0, le=10**6)
    """Epochs from one clustering to the next."""
    dtype: StoredIn = "float32"
    """What embeddings are remembered in; they are clustered in float32."""

    def least(self, offers: Mapping[str, frozenset[str]]) -> list[Least]:
        return [Least("epoch", self.count, "each cluster begins as one of them", field="count")]


class SphericalClustersSpec(ClusterMemorySpec):
    """The centroids of spherical k-means over the last embedding of each sample, as prototypes that are not trained.

    Every process holds the memory of all samples and key views.
    """

    kind: Literal["clusters"] = "clusters"
    builds = ".clusters:SphericalClusters"
    heads: int = Field(3, gt=0, le=64)
    """Clusterings side by side, of ``count`` clusters each, alternately of each key view's memory."""
    iterations: int = Field(10, gt=0, le=10_000)
    """Rounds of k-means; an empty cluster keeps its centroid."""
    needs = {"encoder": frozenset({"one query a view"})}
    gives = frozenset({"entries", "clusters"})
    source = "SwAV, arXiv:2006.09882, appendix (DeepCluster-v2); code: main_deepclusterv2.py cluster_memory"
    example = {"count": 4, "heads": 2}


class ClusterClassifierSpec(ClusterMemorySpec):
    """A linear layer, after a ReLU, that is trained to tell the clusters of k-means over each sample's last embedding.

    It begins anew, with weights from N(0, .01²), whenever they do. Every process holds the memory of all samples.
    """

    kind: Literal["cluster_classifier"] = "cluster_classifier"
    builds = ".classifier:ClusterClassifier"
    pca: int | None = Field(256, gt=0, le=65_536)
    """Principal components, of equal variance and then of unit length, that embeddings are brought to before k-means;
    null clusters them as they are."""
    iterations: int = Field(20, gt=0, le=10_000)
    """Rounds of k-means; an empty cluster begins anew beside another."""
    needs = {"encoder": frozenset({"one query a view"})}
    gives = frozenset({"entries", "clusters"})
    learns = True
    source = "DeepCluster, arXiv:1807.05520, sections 3.2, 3.3 and 4.1; code: facebookresearch/deepcluster main.py"
    example = {"count": 4, "pca": 4}


class ClusterTargetsSpec(Spec):
    """The cluster that the query's sample was last put into, in every head. A sample that is in none has no loss."""

    kind: Literal["cluster"] = "cluster"
    builds = ".clusters:ClusterTargets"
    balanced: bool = False
    """Samples of small clusters weigh more, so that all clusters weigh the same."""
    needs = {"negatives": frozenset({"clusters"})}
    gives = frozenset({"weights"})
    source = "DeepCluster, arXiv:1807.05520, Eq. 2 and section 3.3 (trivial parametrization)"


class ClusterCrossEntropySpec(Spec):
    """Cross-entropy of the softmax over each head's clusters: the mean over heads and over samples with a cluster."""

    kind: Literal["cluster_cross_entropy"] = "cluster_cross_entropy"
    builds = ".clusters:ClusterCrossEntropy"
    temperature: Temperature
    """Divides the scores; above 0. May follow a schedule."""
    needs = {"targets": frozenset({"weights"}), "negatives": frozenset({"clusters"})}
    source = "DeepCluster, arXiv:1807.05520, Eq. 1; code: main_deepclusterv2.py train"
    example = {"temperature": 0.2}


class SobelSpec(Spec):
    """Another backbone behind the two Sobel derivatives of the image's brightness."""

    kind: Literal["sobel"] = "sobel"
    builds = ".alexnet:sobel"
    backbone: Annotated[Spec, Slot("backbone")]
    """The network, of 2 channels, that sees the edges."""
    source = "DeepCluster, arXiv:1807.05520, section 4.1"
    example = {"backbone": {"kind": "conv", "channels": 2, "widths": (6, 8), "strides": (2, 2)}}

    @field_validator("backbone")
    @classmethod
    def _two_channels(cls, value: Spec) -> Spec:
        if value.image_shape()[0] != 2:
            raise ValueError("Sobel filtering makes two channels; give a backbone that has channels: 2")
        return value


class AlexNetSpec(Spec):
    """AlexNet as DeepCluster has it: 96 to 384 channels, BatchNorm, images of 224 pixels.

    Its feature is that of the second linear layer, before the ReLU.
    """

    kind: Literal["alexnet"] = "alexnet"
    builds = ".alexnet:alexnet"
    dropout: float = Field(0.5, ge=0, lt=1)
    """The probability that a value of the fully connected layers is dropped."""
    channels: int = Field(3, gt=0, le=4096)
    """Channels of the image."""
    image_size: Literal[224] = 224
    """Pixels of a side: the one size that the network takes."""
    source = "DeepCluster, arXiv:1807.05520, section 4.1; code: facebookresearch/deepcluster models/alexnet.py"

    def image_shape(self) -> tuple[int, int | None]:
        return self.channels, self.image_size
