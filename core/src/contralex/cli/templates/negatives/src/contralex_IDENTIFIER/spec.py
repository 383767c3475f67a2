"""What a recipe may say about the negative source. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import Spec


class CrossBatchSpec(Spec):
    """The keys of other samples, in this batch and in a memory of the last ``size`` keys before it."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    builds = ".negatives:CrossBatchMemory"
    size: int = Field(gt=0)
    """Keys that are remembered, over all processes."""
    gives = frozenset({"entries", "positive"})
    source = "Cross-batch memory (XBM), arXiv:1912.06798, section 3; the batch as in SimCLR, arXiv:2002.05709"
    example = {"size": 12}
