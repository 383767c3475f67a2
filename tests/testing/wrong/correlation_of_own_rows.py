"""The cross-correlation is of this process's rows, and not of the whole batch."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "two_equal_one"
REASON = r"differ in the loss"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["correlation_of_own_rows"] = "correlation_of_own_rows"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    import torch
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            one, other = (F.normalize(v - v.mean(dim=0), dim=0) for v in (queries.vectors, targets.vectors))
            matrix = one.T @ other
            return (matrix - torch.eye(len(matrix))).pow(2).sum()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
