"""A default is counted up, so the same file means another thing the second time."""

from __future__ import annotations

import itertools
from typing import Any, Literal

from pydantic import Field

from contralex.plugin import Spec, hookimpl

FAILS = "round_trip"
REASON = r"the same values make another spec the second time"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["counted_default"] = "counted_default"
    builds = ":make_part"
    number: int = Field(default_factory=itertools.count().__next__, ge=0)
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part(number: Any) -> Any:
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            return (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
