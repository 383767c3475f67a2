"""A batch statistic is reduced by all_reduce, which has no gradient."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "two_equal_one"
REASON = r"differ in the gradient"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["reduces_without_gradient"] = "reduces_without_gradient"
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
            mean = queries.vectors.mean(dim=0)
            if distributed.world() > 1:
                shared = mean.detach().clone()
                dist.all_reduce(shared)
                mean = mean / 2 + (shared - mean.detach()) / 2
            return mean.pow(2).sum() + (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
