"""The specs of the two losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from contralex.plugin import Least, Spec

# Both compare the two views dimension by dimension over the whole batch, and learn from both sides.
_NEEDS = {
    "targets": frozenset({"vectors"}),
    "negatives": frozenset({"no entries"}),
    "key_encoder": frozenset({"keys with gradient"}),
}


class _OverTheBatch(Spec):
    """What both losses share: they are about how dimensions vary over the samples of a batch."""

    def least(self, offers: Mapping[str, frozenset[str]]) -> list[Least]:
        return [Least("batch", 2, "the loss is about how samples differ")]


class CrossCorrelationSpec(_OverTheBatch):
    """Brings the cross-correlation of the two views' embeddings, over the batch, to the identity."""

    kind: Literal["cross_correlation"] = "cross_correlation"
    weight: float = Field(0.0051, gt=0, le=10)
    """The weight (λ) of the entries off the diagonal beside those on it."""
    builds = ".losses:CrossCorrelationLoss"
    needs = _NEEDS
    source = "Barlow Twins, arXiv:2103.03230, Eqs. 1-2; code: barlowtwins main.py"


class VICRegSpec(_OverTheBatch):
    """Invariance (the views agree), variance (every dimension varies over the batch), covariance (no two repeat).

    ``invariance``, ``variance`` and ``covariance`` weigh the three; ``spread`` is the standard deviation that each
    dimension should reach.
    """

    kind: Literal["vicreg"] = "vicreg"
    invariance: float = Field(25.0, ge=0, le=1e4)
    """The weight of the invariance term (λ)."""
    variance: float = Field(25.0, ge=0, le=1e4)
    """The weight of the variance term (μ)."""
    covariance: float = Field(1.0, ge=0, le=1e4)
    """The weight of the covariance term (ν)."""
    spread: float = Field(1.0, gt=0, le=1e3)
    """The standard deviation (γ) that each dimension should reach."""
    builds = ".losses:VICRegLoss"
    needs = {**_NEEDS, "encoder": frozenset({"any length"})}
    source = "VICReg, arXiv:2105.04906, Eqs. 1-6; code: vicreg main_vicreg.py"
