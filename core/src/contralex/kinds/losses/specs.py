"""Specs of the core's losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from contralex.plugins.spec import Least, Spec
from contralex.recipes.schedules import Temperature


class TemperedSpec(Spec):
    """Fields of every loss over a softmax of scores."""

    temperature: Temperature
    """Divides the scores; above 0. May follow a schedule."""
    example = {"temperature": 0.2}


class InfoNCESpec(TemperedSpec):
    """Softmax cross-entropy of the positive against all entries."""

    kind: Literal["info_nce"] = "info_nce"
    builds = ".parts:InfoNCE"
    weight: float = Field(1.0, gt=0, le=1e6)
    """Multiplies the loss (MoCo v3: 2τ)."""
    needs = {"targets": frozenset({"index"}), "negatives": frozenset({"entries"})}
    source = "CPC, arXiv:1807.03748, Eq. 4; MoCo, arXiv:1911.05722, Eq. 1"


class NCESpec(TemperedSpec):
    """Noise-contrastive estimation against drawn entries, with the normaliser frozen after the first batch."""

    kind: Literal["nce"] = "nce"
    builds = ".parts:NCE"
    normalizer: Literal["one", "each_view"] = "one"
    """``one`` normaliser for all queries (InstDisc), or one for the queries of ``each_view`` (CMC, CRD)."""
    needs = {"targets": frozenset({"index"}), "negatives": frozenset({"drawn"})}
    source = "InstDisc, arXiv:1805.01978, Eqs. 4-8; code: lemniscate NCECriterion, CMC NCEAverage"


class CosineSpec(Spec):
    """weight·(1 − cos) between the query and the target vector."""

    kind: Literal["cosine"] = "cosine"
    builds = ".parts:CosineLoss"
    weight: float = Field(2.0, gt=0, le=1e4)
    """Multiplies the loss. With 2 it is the squared distance of unit vectors (BYOL); with 1 the gradient is that of
    −cos (SimSiam)."""
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2; SimSiam, arXiv:2011.10566, Eq. 1"


class SoftCrossEntropySpec(TemperedSpec):
    """Cross-entropy between a target distribution and the softmax over all entries."""

    kind: Literal["soft_cross_entropy"] = "soft_cross_entropy"
    builds = ".parts:SoftCrossEntropy"
    needs = {"targets": frozenset({"weights"}), "negatives": frozenset({"entries"})}
    source = "SwAV, arXiv:2006.09882, Eq. 2"


class KoLeoSpec(Spec):
    """−log of the distance to the nearest other query of the view, over the batch of all processes; it spreads queries.

    It reads neither entries nor targets: a further look-up of ``matches`` that the method has, with negatives ``none``
    and targets ``key_vector``, adds it to any method.
    """

    kind: Literal["koleo"] = "koleo"
    builds = ".parts:KoLeo"
    needs = {"negatives": frozenset({"no entries"})}
    source = "Sablayrolles et al., arXiv:1806.03198, Eq. 2; DINOv2, arXiv:2304.07193, section 4; code: koleo_loss.py"

    def least(self, offers: Mapping[str, frozenset[str]]) -> list[Least]:
        return [Least("batch", 2, "each query needs another one, to be far from")]


class MeanEntropySpec(TemperedSpec):
    """log M − the entropy of the mean distribution over the M entries: 0 where the queries use all entries alike.

    It reads no targets. A further look-up of one match adds it, with negatives ``borrowed`` from the look-up whose
    prototypes should be used.
    """

    kind: Literal["mean_entropy"] = "mean_entropy"
    builds = ".parts:MeanEntropy"
    needs = {"negatives": frozenset({"prototypes", "shared entries alone"})}
    source = "MSN, arXiv:2204.07141, Eq. 1; code: losses.py, me_max"
