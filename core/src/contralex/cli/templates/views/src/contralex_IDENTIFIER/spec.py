"""What a recipe may say about the views. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import Normalize, Spec


class CutoutSpec(Spec):
    """Random crops, mirrored at random, each with a square hole."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    builds = ".views:CutoutViews"
    size: int = Field(gt=0, le=4096)
    """The side of a crop, in pixels."""
    hole: int = Field(gt=0, le=4096)
    """The side of the hole, in pixels; less of it is seen at the edge of a crop."""
    count: int = Field(2, gt=0, le=256)
    """Number of views."""
    flip: float = Field(0.5, ge=0, le=1)
    """The probability that a crop is mirrored."""
    normalize: Normalize | None = None
    """The mean and the standard deviation of each channel, which bring values near 0 and 1; a hole is 0."""
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"images"})
    source = "Cutout, arXiv:1708.04552, section 3.2"
    example = {"size": 12, "hole": 4}

    def key_flags(self) -> list[bool]:
        return [True] * self.count
