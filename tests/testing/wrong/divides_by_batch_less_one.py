"""A covariance is divided by the batch less one, which is zero for one sample."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "degenerate_input"
REASON = r"batch of one sample is (nan|inf)"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["divides_by_batch_less_one"] = "divides_by_batch_less_one"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    from torch.nn import functional as F

    from contralex.lookup import distributed
    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            everyone = distributed.gather(queries.vectors, gradient=True)
            centred = everyone - everyone.mean(dim=0)
            spread = (centred.T @ centred / (len(everyone) - 1)).diagonal().mean()
            return spread + (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
