"""What a recipe may say about the backbone. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from contralex.plugin import Spec


class AllConvSpec(Spec):
    """Convolutions alone: each stage has one that keeps the size and one that halves it, and no pooling."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    builds = ".backbone:make_all_conv"
    widths: tuple[Annotated[int, Field(gt=0, le=65536)], ...] = Field((64, 128, 256), min_length=1, max_length=16)
    """Channels of each stage; the last are the dimension of the features."""
    gives = frozenset({"places"})
    source = "All Convolutional Net, arXiv:1412.6806, section 3 (model C), with BatchNorm"
    example = {"widths": (6, 8)}
