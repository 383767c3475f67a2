"""The kind has no docstring, so nobody can read what it is."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "documented"
REASON = r"Wrong has no docstring"


class Wrong(Spec):
    kind: Literal["no_docstring"] = "no_docstring"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
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
