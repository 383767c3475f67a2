"""Weights are drawn from numpy's generator, which the run's seed does not set."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "builds_alike"
REASON = r"a second build has another loss.scale"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["weights_from_numpy"] = "weights_from_numpy"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    import numpy as np
    import torch
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(np.random.rand(), dtype=torch.float32))

        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            return self.scale.abs() * (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
