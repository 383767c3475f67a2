"""What a recipe may say about the key encoder. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import Spec


class AveragedSpec(Spec):
    """A moving average of the query encoder's weights *and* statistics, which begins as their plain mean.

    A key does not depend on the other samples of its batch, so shuffle-BN is not needed.
    """

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    builds = ".key_encoder:AveragedEncoder"
    momentum: float = Field(ge=0, lt=1)
    """The weight of the average so far, once the run is under way."""
    gives = frozenset({"keys"})
    key_weights = "following"
    source = "EMAN, arXiv:2101.08482, section 3; the beginning: Mean Teacher, arXiv:1703.01780, its code"
    example = {"momentum": 0.9}
