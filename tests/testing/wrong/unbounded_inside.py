"""Numbers in a list, and one that is null at first, have no bound."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "bounded"
REASON = r"weights\.0, weights\.1, margin take any number"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["unbounded_inside"] = "unbounded_inside"
    builds = ":make_part"
    weights: tuple[float, ...] = (2.0, 2.0)
    margin: float | None = None
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part(weights: Any, margin: Any) -> Any:
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            cosine = F.cosine_similarity(queries.vectors, targets.vectors, dim=1)
            return (weights[0] - weights[1] * cosine).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
