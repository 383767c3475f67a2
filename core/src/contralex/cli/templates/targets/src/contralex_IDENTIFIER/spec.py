"""What a recipe may say about the targets. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import Spec


class SoftInstanceSpec(Spec):
    """The sample itself and, with a ``fraction`` of the weight, what its key resembles."""

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    builds = ".targets:SoftInstanceTargets"
    fraction: float = Field(ge=0, le=1)
    """The part of the weight that entries of other samples get; 1 − λ in the paper."""
    temperature: float = Field(gt=0)
    """Divides the key's similarities; lower is sharper."""
    needs = {"negatives": frozenset({"positive"})}
    gives = frozenset({"weights"})
    source = "SCE (similarity contrastive estimation), arXiv:2111.14585, section 3"
    example = {"fraction": 0.5, "temperature": 0.05}
