"""A default is infinite, which JSON cannot say and no spec takes."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from contralex.plugin import Spec, hookimpl

FAILS = "round_trip"
REASON = r"makes no valid spec \(limit\)"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["infinite_default"] = "infinite_default"
    builds = ":make_part"
    limit: float = Field(math.inf, gt=0)
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part(limit: Any) -> Any:
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            return (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
