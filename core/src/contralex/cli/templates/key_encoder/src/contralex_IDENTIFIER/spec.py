"""What a recipe may say about the key encoder. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from contralex.plugin import Spec

if TYPE_CHECKING:
    from contralex.plugin import BuildContext, KeyEncoder


class Averaged(Spec):
    """A moving average of the query encoder's weights *and* statistics, which begins as their plain mean.

    A key does not depend on the other samples of its batch, so shuffle-BN is not needed.
    """

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    momentum: float = Field(ge=0, lt=1)
    """Weight of the average so far, once the run is under way."""
    gives = frozenset({"keys"})
    key_weights = "following"
    source = "EMAN, arXiv:2101.08482, section 3; the beginning: Mean Teacher, arXiv:1703.01780, its code"
    example = {"momentum": 0.9}

    def build(self, context: BuildContext) -> KeyEncoder:
        from contralex_IDENTIFIER.key_encoder import AveragedEncoder

        return AveragedEncoder(self, context)
