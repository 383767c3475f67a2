"""The loss takes the logarithm of a cosine, which may be negative."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "finite_loss"
REASON = r"is nan"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["log_of_a_negative"] = "log_of_a_negative"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            return -F.cosine_similarity(queries.vectors, -queries.vectors, dim=1).log().mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
