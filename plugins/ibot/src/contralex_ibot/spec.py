"""The spec of iBOT's targets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import Spec, Temperature


class CentredPatchesSpec(Spec):
    """For each hidden patch, the teacher's distribution over the prototypes at its place: softmax((its scores −
    centre)/temperature). The patches of an image share its weight, so that each image counts alike."""

    kind: Literal["centred_patches"] = "centred_patches"
    temperature: Temperature = 0.04
    """The teacher's temperature, below the student's; may follow a schedule."""
    centre_momentum: float = Field(0.9, ge=0, le=1)
    """The weight of the old centre when the mean over all the teacher's patches enters it, after each step; 1 leaves
    the centre at zero."""
    builds = ".targets:CentredPatchTargets"
    needs = {"negatives": frozenset({"prototypes"}), "encoder": frozenset({"queries at positions"})}
    gives = frozenset({"weights"})
    source = "iBOT, arXiv:2111.07832, section 3.1, Eq. 2; code: main_ibot.py, iBOTLoss"
