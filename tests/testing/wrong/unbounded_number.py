"""A temperature may be any number, zero and below as well."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "bounded"
REASON = r"^temperature takes any number"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["unbounded_number"] = "unbounded_number"
    builds = ":make_part"
    temperature: float = 1.0
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part(temperature: Any) -> Any:
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            cosine = F.cosine_similarity(queries.vectors, targets.vectors, dim=1)
            return ((1 - cosine) / temperature).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
