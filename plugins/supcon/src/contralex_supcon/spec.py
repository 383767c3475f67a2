"""The specs of SupCon's target generator and loss."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import Spec, Temperature


class LabelsSpec(Spec):
    """All entries of the query's class, in equal parts. A sample without a label has only itself."""

    kind: Literal["labels"] = "labels"
    builds = ".parts:LabelTargets"
    needs = {"data": frozenset({"labels"}), "negatives": frozenset({"tagged entries"})}
    gives = frozenset({"weights"})
    source = "SupCon, arXiv:2004.11362, section 3.2.2"


class SupConSpec(Spec):
    """Softmax over all entries, with several positives."""

    kind: Literal["supcon"] = "supcon"
    temperature: Temperature
    """Divides the scores; above 0. May follow a schedule."""
    positives: Literal["outside", "inside"] = "outside"
    """The mean over the positives stands ``outside`` the logarithm (L_out, the better one), or ``inside`` (L_in)."""
    base_temperature: float | None = Field(None, gt=0, le=100)
    """The loss is multiplied by temperature/base_temperature, as in the official code with .07 and in the paper's
    training with 1; null for the paper's formula."""
    builds = ".parts:SupConLoss"
    needs = {"targets": frozenset({"weights"}), "negatives": frozenset({"entries"})}
    source = "SupCon, arXiv:2004.11362, Eq. 2 (outside) and Eq. 3 (inside); code: SupContrast losses.py"
    example = {"temperature": 0.2}
