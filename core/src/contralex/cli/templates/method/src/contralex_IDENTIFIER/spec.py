"""What a recipe may say about the method's two parts. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import Spec


class RelationsSpec(Spec):
    """How much the sample's key resembles each entry of another sample, as a distribution over them."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    builds = ".targets:RelationTargets"
    temperature: float = Field(gt=0)
    """Divides the key's similarities; lower is sharper."""
    needs = {"negatives": frozenset({"positive"})}
    gives = frozenset({"index", "weights", "relations"})
    source = "ReSSL, arXiv:2107.09282, section 3.2 (the teacher's distribution)"
    example = {"temperature": 0.04}


class RelationalSpec(Spec):
    """Cross-entropy between the key's relations to other samples and the query's."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    builds = ".loss:RelationalLoss"
    temperature: float = Field(gt=0)
    """Divides the query's similarities; above the targets'."""
    needs = {"targets": frozenset({"relations"}), "negatives": frozenset({"entries"})}
    source = "ReSSL, arXiv:2107.09282, section 3.2 (the loss)"
    example = {"temperature": 0.1}
