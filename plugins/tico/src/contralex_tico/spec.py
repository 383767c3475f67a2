"""The spec of TiCo's loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from contralex.plugin import Least, Spec


class TiCoSpec(Spec):
    """1 − the cosine of query and key, and ``weight`` times the second moment of queries along each query, which a
    moving average of all queries so far gives."""

    kind: Literal["tico"] = "tico"
    weight: float = Field(8.0, ge=0, le=1e4)
    """The weight (ρ) of the contrast with earlier queries."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """The weight (β) of the old second moment when that of a batch enters it."""
    builds = ".loss:TiCoLoss"
    needs = {
        "targets": frozenset({"vectors"}),
        "negatives": frozenset({"no entries"}),
        "encoder": frozenset({"unit length"}),
    }
    source = "TiCo, arXiv:2206.10698, Algorithm 1; code of a third party: lightly, TiCoLoss"

    def least(self, offers: Mapping[str, frozenset[str]]) -> list[Least]:
        return [Least("batch", 2, "the loss is about how the queries of different samples lie")]
