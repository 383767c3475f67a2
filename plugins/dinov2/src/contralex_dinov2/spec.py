"""The spec of DINOv2's targets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import Spec, Temperature


class PooledSinkhornSpec(Spec):
    """The teacher's distribution over the prototypes, in which all prototypes get an equal part of the keys of *all*
    key views together. Of queries at positions, the keys at those positions alone take part, and the queries of a
    sample share its weight."""

    kind: Literal["pooled_sinkhorn"] = "pooled_sinkhorn"
    temperature: Temperature = 0.07
    """The teacher's temperature, which is the weight of the entropy (epsilon of SwAV's); may follow a schedule."""
    iterations: int = Field(3, gt=0, le=1000)
    """How often the parts of the prototypes and those of the keys are made equal."""
    builds = ".targets:PooledSinkhornTargets"
    needs = {"negatives": frozenset({"prototypes"})}
    gives = frozenset({"weights"})
    source = "DINOv2, arXiv:2304.07193, section 4; code: dinov2 loss/dino_clstoken_loss.py, ibot_patch_loss.py"
