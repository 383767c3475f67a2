"""The kind names no paper and no code."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "cites_a_source"
REASON = r"source is empty"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["no_source"] = "no_source"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}


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
