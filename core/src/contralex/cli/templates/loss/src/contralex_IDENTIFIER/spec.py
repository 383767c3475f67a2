"""What a recipe may say about the loss. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from contralex.plugin import Spec

if TYPE_CHECKING:
    from contralex.plugin import BuildContext, Loss


class Decoupled(Spec):
    """InfoNCE without the positive in its denominator: a query that finds it easily still pushes others away."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    temperature: float = Field(gt=0)
    """Divides the scores."""
    needs = {"targets": frozenset({"index"}), "negatives": frozenset({"entries"})}
    source = "DCL, arXiv:2110.06848, section 3 (the loss L_DC)"
    example = {"temperature": 0.2}

    def build(self, context: BuildContext) -> Loss:
        from contralex_IDENTIFIER.loss import DecoupledLoss

        return DecoupledLoss(self)
