"""The loss is returned in bfloat16."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "finite_loss"
REASON = r"torch.bfloat16 of shape"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["loss_returned_in_bf16"] = "loss_returned_in_bf16"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            loss = (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()
            return loss.bfloat16()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
