"""The specs of DINO's last layer and of its targets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import Spec, Temperature


class WeightNormedPrototypesSpec(Spec):
    """``count`` trainable directions: a prototype is gain·v/‖v‖, and the gradient goes through the division."""

    kind: Literal["weight_normed_prototypes"] = "weight_normed_prototypes"
    count: int = Field(gt=1, le=2**24)
    """Prototypes."""
    gain: Literal["fixed", "trained"] = "fixed"
    """The length of a prototype: 1 for good (``fixed``), or one of its own, 1 at first (``trained``)."""
    builds = ".prototypes:WeightNormedPrototypes"
    gives = frozenset({"entries", "prototypes"})
    learns = True
    source = "DINO, arXiv:2104.14294, section 3.1 and appendix C; code: DINOHead, norm_last_layer"
    example = {"count": 10, "gain": "trained"}


class CentredSoftmaxSpec(Spec):
    """The teacher's distribution over the prototypes: softmax((its scores − centre)/temperature)."""

    kind: Literal["centred_softmax"] = "centred_softmax"
    temperature: Temperature = 0.04
    """The teacher's temperature, below the student's; may follow a schedule."""
    centre_momentum: float = Field(0.9, ge=0, le=1)
    """The weight of the old centre when the mean of a batch's scores enters it, after each step; 1 leaves the centre at
    zero."""
    builds = ".targets:CentredSoftmaxTargets"
    needs = {"negatives": frozenset({"prototypes"})}
    gives = frozenset({"weights"})
    source = "DINO, arXiv:2104.14294, section 3.1, Eqs. 1 and 4; code: DINOLoss"
