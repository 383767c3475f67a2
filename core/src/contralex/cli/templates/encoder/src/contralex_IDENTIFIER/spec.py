"""What a recipe may say about the encoder. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from contralex.plugin import Spec

if TYPE_CHECKING:
    from contralex.plugin import Encoder


class ConvMixer(Spec):
    """Patches of an image, mixed by convolutions over places and over channels in turn; then a projector."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    patch: int = Field(gt=0)
    """Pixels of a patch's side."""
    width: int = Field(gt=0)
    """Channels, and numbers of the representation."""
    depth: int = Field(gt=0)
    """Layers."""
    kernel: int = Field(gt=0)
    """Patches that a convolution spans; odd."""
    dim: int = Field(gt=0)
    """Numbers of the vectors that are looked up."""
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

    def build(self) -> Encoder:
        from contralex_IDENTIFIER.encoder import ConvMixerEncoder

        return ConvMixerEncoder(self)
