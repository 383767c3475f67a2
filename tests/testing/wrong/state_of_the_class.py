"""A running mean is an attribute of the class, so that a second run begins where the first ended."""

from __future__ import annotations

import functools
from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "deterministic"
REASON = r"has another loss"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["state_of_the_class"] = "state_of_the_class"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    return _class()()


@functools.cache
def _class() -> Any:
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        mean: Any = 0.0

        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            Part.mean = 0.9 * Part.mean + 0.1 * targets.vectors.detach().mean(dim=0)
            return (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors - Part.mean, dim=1)).mean()

    return Part


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
