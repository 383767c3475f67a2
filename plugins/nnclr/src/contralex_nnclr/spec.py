"""The specs of NNCLR's target generator and loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from contralex.plugin import Least, Spec, Temperature


class NeighbourSpec(Spec):
    """The nearest neighbour of the sample's key in a support set: the last ``size`` keys of the first key view."""

    kind: Literal["neighbour"] = "neighbour"
    size: int = Field(gt=0, le=2**30)
    """Keys in the support set."""
    builds = ".parts:NeighbourTargets"
    needs = {"encoder": frozenset({"unit length"})}
    gives = frozenset({"vectors"})
    source = "NNCLR, arXiv:2104.14548, section 3.2, Eq. 4"
    example = {"size": 12}


class NeighbourNCESpec(Spec):
    """Softmax over the queries of the whole batch: a target vector should find its own query among them."""

    kind: Literal["neighbour_nce"] = "neighbour_nce"
    temperature: Temperature
    """Divides the scores; above 0. May follow a schedule."""
    symmetric: bool = True
    """Whether a query should find its own target among all of them as well; the loss is the mean of both."""
    builds = ".parts:NeighbourNCELoss"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "NNCLR, arXiv:2104.14548, section 3.2, Eq. 3 and its implementation details"
    example = {"temperature": 0.2}

    def least(self, offers: Mapping[str, frozenset[str]]) -> list[Least]:
        return [Least("batch", 2, "the other queries are the negatives, and one has none")]
