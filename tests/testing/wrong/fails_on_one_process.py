"""One process of two raises, and the other waits for it."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "two_equal_one"
REASON = r"process 1 of two raised ZeroDivisionError: nothing on rank 1"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["fails_on_one_process"] = "fails_on_one_process"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    from torch.nn import functional as F

    from contralex.lookup import distributed
    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            if distributed.rank() == 1:
                raise ZeroDivisionError("nothing on rank 1")
            return (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
