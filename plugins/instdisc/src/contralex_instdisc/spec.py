"""The spec of InstDisc's proximal term."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from contralex.plugin import Slot, Spec


class ProximalSpec(Spec):
    """Any loss over a memory bank, plus ``weight``·‖v − v_old‖², v_old being what memory remembers of the sample.

    The paper has it (Eqs. 9 and 10), the released code does not; the weight of 30 is unconfirmed.
    """

    kind: Literal["proximal"] = "proximal"
    weight: float = Field(gt=0, le=1e6)
    """The weight of the proximal term."""
    base: Annotated[Spec, Slot("loss")]
    """The loss that the term is added to."""
    builds = ".proximal:ProximalLoss"
    needs = {"targets": frozenset({"index"}), "negatives": frozenset({"remembered"})}
    source = "InstDisc, arXiv:1805.01978, Eqs. 9-10"
    example = {"weight": 1.0, "base": {"kind": "nce", "temperature": 0.2}}

    def requires(self) -> list[tuple[str, frozenset[str]]]:
        return [*super().requires(), *self.base.requires()]
