"""The centre becomes a buffer in the first update(), so a fresh method has no place for it."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "through_safetensors"
REASON = r"targets\.centre is there only after steps; register every buffer in __init__"


class Wrong(Spec):
    """What should be found, wrongly."""

    kind: Literal["buffer_registered_late"] = "buffer_registered_late"
    builds = ":make_part"
    needs = {"negatives": frozenset({"no entries"})}
    gives = frozenset({"vectors"})
    source = "DINO, arXiv:2104.14294, Eq. 4"


def make_part() -> Any:
    from contralex.lookup.slots import TargetGenerator
    from contralex.lookup.values import Targets

    class Part(TargetGenerator):
        def forward(self, queries: Any, keys: Any, dictionary: Any, match: Any, step: Any) -> Any:
            vectors = keys.select_matching(queries, match).vectors
            centre = getattr(self, "centre", 0.0)
            return Targets(vectors=(vectors - centre).detach())

        def update(self, keys: Any, step: Any) -> None:
            self.register_buffer("centre", keys.vectors.mean(dim=0))

    return Part()


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [Wrong]
