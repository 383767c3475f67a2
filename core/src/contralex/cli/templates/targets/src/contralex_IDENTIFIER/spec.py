"""What a recipe may say about the targets. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from contralex.plugin import Spec

if TYPE_CHECKING:
    from contralex.plugin import BuildContext, TargetGenerator


class SoftInstance(Spec):
    """The sample itself and, with a ``share`` of the weight, what its key resembles."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    share: float = Field(ge=0, le=1)
    """Of the weight, for entries of other samples; 1 − λ in the paper."""
    temperature: float = Field(gt=0)
    """Divides the key's similarities; lower is sharper."""
    needs = {"negatives": frozenset({"positive"})}
    gives = frozenset({"weights"})
    source = "SCE (similarity contrastive estimation), arXiv:2111.14585, section 3"
    example = {"share": 0.5, "temperature": 0.05}

    def build(self, context: BuildContext) -> TargetGenerator:
        from contralex_IDENTIFIER.targets import SoftInstanceTargets

        return SoftInstanceTargets(self)
