"""What a recipe may say about the encoder. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from contralex.plugin import Spec


class ConvMixerSpec(Spec):
    """Patches of an image, mixed by convolutions over patches and over channels in turn; then a projector."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    builds = ".encoder:ConvMixerEncoder"
    patch: int = Field(gt=0)
    """The side of a patch, in pixels."""
    width: int = Field(gt=0)
    """Channels, which is the dimension of the features."""
    depth: int = Field(gt=0)
    """Number of layers."""
    kernel: int = Field(gt=0)
    """The side of a convolution, in patches; odd."""
    dim: int = Field(gt=0)
    """The dimension of the vectors that are looked up."""
    needs = {"views": frozenset({"images"})}
    gives = frozenset({"one query a view", "unit length"})
    source = "ConvMixer, arXiv:2201.09792, section 2; the projector: SimCLR, arXiv:2002.05709, section 2.1"
    example = {"patch": 2, "width": 8, "depth": 1, "kernel": 3, "dim": 6}

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"a kernel is odd, so that it has a middle: {value - 1} or {value + 1}, not {value}")
        return value
