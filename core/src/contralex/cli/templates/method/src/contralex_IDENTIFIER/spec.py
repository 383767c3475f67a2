"""What a recipe may say about the method's two parts. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from contralex.plugin import Spec

if TYPE_CHECKING:
    from contralex.plugin import BuildContext, Loss, TargetGenerator


class Relations(Spec):
    """How much the sample's key resembles each entry of another sample, as a distribution over them."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    temperature: float = Field(gt=0)
    """Divides the key's similarities; lower is sharper."""
    needs = {"negatives": frozenset({"positive"})}
    gives = frozenset({"index", "weights", "relations"})
    source = "ReSSL, arXiv:2107.09282, section 3.2 (the teacher's distribution)"
    example = {"temperature": 0.04}

    def build(self, context: BuildContext) -> TargetGenerator:
        from contralex_IDENTIFIER.targets import RelationTargets

        return RelationTargets(self)


class Relational(Spec):
    """Cross-entropy between the key's relations to other samples and the query's."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    temperature: float = Field(gt=0)
    """Divides the query's similarities; above the targets'."""
    needs = {"targets": frozenset({"relations"}), "negatives": frozenset({"entries"})}
    source = "ReSSL, arXiv:2107.09282, section 3.2 (the loss)"
    example = {"temperature": 0.1}

    def build(self, context: BuildContext) -> Loss:
        from contralex_IDENTIFIER.loss import RelationalLoss

        return RelationalLoss(self)
