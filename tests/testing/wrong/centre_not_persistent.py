"""The centre is a buffer that is left out of the state."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "resumes"
REASON = r"without a stop and .* after one; keep what changes in buffers"


class Wrong(Spec):
    """What should be found, wrongly."""

    kind: Literal["centre_not_persistent"] = "centre_not_persistent"
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
            self.register_buffer("centre", torch.zeros(dim), persistent=False)

        def forward(self, queries: Any, keys: Any, dictionary: Any, match: Any, step: Any) -> Any:
            vectors = keys.select_matching(queries, match).vectors
            return Targets(vectors=(vectors - self.centre).detach())

        def update(self, keys: Any, step: Any) -> None:
            self.centre.lerp_(keys.vectors.mean(dim=0), 0.1)

    return Part()


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [Wrong]
