"""The spec of InvaSpread's loss."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import Spec, Temperature


class SpreadSpec(Spec):
    """The right entry is to be probable, and each wrong one improbable."""

    kind: Literal["spread"] = "spread"
    temperature: Temperature
    """Divides the scores; above 0. May follow a schedule."""
    m: float = Field(1.0, ge=1, le=1e4)
    """How often each wrong entry counts, in the denominator and in the sum over them. Below 1 a probability could
    exceed 1, where the official code does something else."""
    builds = ".loss:SpreadLoss"
    needs = {"targets": frozenset({"index"}), "negatives": frozenset({"entries"})}
    source = "InvaSpread, arXiv:1904.03436, Eqs. 3-6; code: BatchAverage.py BatchCriterion"
    example = {"temperature": 0.2}
