"""The centre is the mean of this process's rows, so that each process has another."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "two_equal_one"
REASON = r"differ in (the loss|targets.centre)"


class Wrong(Spec):
    """What should be found, wrongly."""

    kind: Literal["centre_of_own_rows"] = "centre_of_own_rows"
    builds = ":make_part"
    needs = {"negatives": frozenset({"no entries"})}
    gives = frozenset({"vectors"})
    source = "DINO, arXiv:2104.14294, Eq. 4"


def make_part(dim: Any) -> Any:
    import torch

    from contralex.lookup.slots import TargetGenerator
    from contralex.lookup.values import Targets

    class Part(TargetGenerator):
        centre: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("centre", torch.zeros(dim))

        def forward(self, queries: Any, keys: Any, dictionary: Any, match: Any, step: Any) -> Any:
            vectors = keys.select_matching(queries, match).vectors
            self.mean = vectors.mean(dim=0)
            return Targets(vectors=(vectors - self.centre).detach())

        def update(self, keys: Any, step: Any) -> None:
            self.centre.lerp_(self.mean, 0.5)

    return Part()


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [Wrong]
