"""A list as a default argument remembers the keys of every method of the process."""

from __future__ import annotations

import functools
from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "deterministic"
REASON = r"has another loss"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["mutable_default"] = "mutable_default"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    return _class()()


@functools.cache
def _class() -> Any:
    import torch
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def __init__(self, seen: list[Any] = []) -> None:  # noqa: B006 - the mistake
            super().__init__()
            self.seen = seen

        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            self.seen.append(targets.vectors.detach().mean(dim=0))
            centre = torch.stack(self.seen).mean(dim=0)
            return (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors - centre, dim=1)).mean()

    return Part


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
