"""It needs a feature that nothing gives, for its name is mistyped."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "builds_alike"
REASON = r"it needs vektors from targets, which none there gives; there are .*vectors"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["needs_what_nobody_gives"] = "needs_what_nobody_gives"
    builds = ":make_part"
    needs = {"targets": frozenset({"vektors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            return (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
