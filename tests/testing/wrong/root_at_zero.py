"""The distance is a root, whose gradient at zero is not finite."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "degenerate_input"
REASON = r"gradient .*is not finite"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["root_at_zero"] = "root_at_zero"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            return (queries.vectors - targets.vectors).pow(2).sum(dim=1).sqrt().mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
