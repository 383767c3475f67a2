"""The keys of every step are kept, so that the state has another shape each time."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "through_safetensors"
REASON = r"targets\.seen grew from \(0, 8\)"


class Wrong(Spec):
    """What should be found, wrongly."""

    kind: Literal["buffer_that_grows"] = "buffer_that_grows"
    builds = ":make_part"
    needs = {"negatives": frozenset({"no entries"})}
    gives = frozenset({"vectors"})
    source = "DINO, arXiv:2104.14294, Eq. 4"


def make_part(dim: Any) -> Any:
    import torch

    from contralex.lookup.slots import TargetGenerator
    from contralex.lookup.values import Targets

    class Part(TargetGenerator):
        seen: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(0, dim))

        def forward(self, queries: Any, keys: Any, dictionary: Any, match: Any, step: Any) -> Any:
            vectors = keys.select_matching(queries, match).vectors
            return Targets(vectors=vectors.detach())

        def update(self, keys: Any, step: Any) -> None:
            self.seen = torch.cat([self.seen, keys.vectors])

    return Part()


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [Wrong]
