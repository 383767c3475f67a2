"""A trainable parameter takes no part in the loss."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "gradients_arrive"
REASON = r"no gradient reaches loss\.scale"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["parameter_of_no_use"] = "parameter_of_no_use"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    import torch
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            return (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
