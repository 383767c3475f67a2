"""The part has no argument for a field of the spec, so no recipe that sets it can be built."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from contralex.plugin import Spec, hookimpl

FAILS = "part_takes_the_fields"
REASON = r"make_part takes no weight, and Wrong has such a field; add an argument of that name to make_part"


class Wrong(Spec):
    """Regression on the key."""

    kind: Literal["part_without_a_field"] = "part_without_a_field"
    builds = ":make_part"
    weight: float = Field(1.0, gt=0, le=10)
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    from torch.nn import functional as F

    from contralex.plugin import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            return (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
