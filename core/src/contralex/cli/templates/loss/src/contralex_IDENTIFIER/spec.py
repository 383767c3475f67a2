"""What a recipe may say about the loss. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import Spec


class DecoupledSpec(Spec):
    """InfoNCE without the positive in its denominator: a query that finds it easily still pushes others away."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    builds = ".loss:DecoupledLoss"
    temperature: float = Field(gt=0)
    """Divides the scores."""
    needs = {"targets": frozenset({"index"}), "negatives": frozenset({"entries"})}
    source = "DCL, arXiv:2110.06848, section 3 (the loss L_DC)"
    example = {"temperature": 0.2}
