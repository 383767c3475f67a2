"""The spec of InvaSpread's loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from contralex import Spec, Temperature

if TYPE_CHECKING:
    from contralex import BuildContext, Loss


class Spread(Spec):
    """The right entry is to be probable, and each wrong one improbable.

    ``temperature`` divides the scores. ``m``: how often each wrong entry counts, in the denominator and in the sum over
    them. (Below 1 a probability could exceed 1; the official code does something else there.)
    """

    kind: Literal["spread"] = "spread"
    temperature: Temperature = Field(description="divides the scores, > 0")
    m: float = Field(1.0, ge=1, le=1e4)
    needs = {"targets": frozenset({"index"}), "negatives": frozenset({"entries"})}
    source = "InvaSpread, arXiv:1904.03436, Eqs. 3-6; code: BatchAverage.py BatchCriterion"
    example = {"temperature": 0.2}

    def build(self, context: BuildContext) -> Loss:
        from contralex_invaspread.loss import SpreadLoss

        return SpreadLoss(self)
