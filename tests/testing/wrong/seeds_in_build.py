"""Making the part seeds torch's generator, so that all weights drawn after it are the same whatever the run's seed."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "builds_alike"
REASON = r"making the part seeds torch's generator"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["seeds_in_build"] = "seeds_in_build"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            return (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
