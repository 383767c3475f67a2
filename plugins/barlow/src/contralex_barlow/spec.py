"""The specs of the losses, and of VICRegL's matches of places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from contralex.plugin import Least, OutputName, Spec

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


class _VICRegWeights(_OverTheBatch):
    """What the losses of VICReg and VICRegL share."""

    invariance: float = Field(25.0, ge=0, le=1e4)
    """The weight of the invariance term (λ)."""
    variance: float = Field(25.0, ge=0, le=1e4)
    """The weight of the variance term (μ)."""
    covariance: float = Field(1.0, ge=0, le=1e4)
    """The weight of the covariance term (ν)."""
    spread: float = Field(1.0, gt=0, le=1e3)
    """The standard deviation (γ) that each dimension should reach."""


class VICRegSpec(_VICRegWeights):
    """Invariance (the views agree), variance (every dimension varies over the batch), covariance (no two repeat).

    ``invariance``, ``variance`` and ``covariance`` weigh the three; ``spread`` is the standard deviation that each
    dimension should reach.
    """

    kind: Literal["vicreg"] = "vicreg"
    builds = ".losses:VICRegLoss"
    needs = {**_NEEDS, "encoder": frozenset({"any length"})}
    source = "VICReg, arXiv:2105.04906, Eqs. 1-6; code: vicreg main_vicreg.py"


class LocalVICRegSpec(_VICRegWeights):
    """VICReg of pairs of places: variance and covariance are those of each pair's slot over the batch, averaged.

    With targets ``nearest_place`` a further look-up of places adds VICRegL's local criterion to any method.
    """

    kind: Literal["local_vicreg"] = "local_vicreg"
    keep: int | None = Field(None, ge=1, le=2**20)
    """How many pairs of each image are kept, the closest by what they were matched by. Null, or more than there are
    places: all."""
    builds = ".losses:LocalVICRegLoss"
    needs = {
        "targets": frozenset({"vectors"}),
        "negatives": frozenset({"no entries"}),
        "encoder": frozenset({"any length"}),
    }
    source = "VICRegL, arXiv:2210.01571, section 3; code: VICRegL main_vicregl.py, _vicreg_loss"


class NearestPlaceSpec(Spec):
    """The vector of the place of the other view of its own image that lies nearest to the query, for regression: by
    their vectors, or with ``coordinates`` by where both lie in the image.
    """

    kind: Literal["nearest_place"] = "nearest_place"
    coordinates: OutputName | None = None
    """The output of the encoder that has the coordinates of places, by which they match. Null: they match by their
    vectors."""
    builds = ".places:NearestPlaceTargets"
    gives = frozenset({"vectors"})
    source = (
        "VICRegL, arXiv:2210.01571, section 3; code: VICRegL main_vicregl.py, neirest_neighbores_on_l2, "
        "neirest_neighbores_on_location"
    )

    def reads_outputs(self) -> tuple[str, ...]:
        return (self.coordinates,) if self.coordinates is not None else ()

    def requires(self) -> list[tuple[str, frozenset[str]]]:
        return [("encoder", frozenset({"coordinates"}))] if self.coordinates is not None else []
