"""Only the first process reduces its loss, and waits for a partner that never comes."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "two_equal_one"
REASON = r"the two processes (broke down|came to a standstill)|of two raised"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["skips_a_collective"] = "skips_a_collective"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    import torch.distributed as dist
    from torch.nn import functional as F

    from contralex.lookup import distributed
    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            loss = (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()
            if distributed.world() > 1 and distributed.rank() == 0:
                dist.all_reduce(loss.detach().clone())
            return loss

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
