"""The look-up seeds torch's generator, and with it every later draw."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "leaves_the_process_alone"
REASON = r"it changed torch's random generator"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["seeds_in_forward"] = "seeds_in_forward"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    import torch
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            torch.manual_seed(step.seed + step.clock.step)
            noise = 0.1 * torch.rand(len(queries))
            return (noise + 2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
