"""Vectors are brought to unit length by a division that nothing guards."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "degenerate_input"
REASON = r"zero vectors is nan"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["no_eps"] = "no_eps"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            q, k = (v / v.norm(dim=1, keepdim=True) for v in (queries.vectors, targets.vectors))
            return (2 - 2 * (q * k).sum(dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
