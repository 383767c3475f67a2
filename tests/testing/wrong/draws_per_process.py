"""Every process draws for its own queries from the same seed, and so draws the same as the others."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "two_equal_one"
REASON = r"differ in the loss"


class Wrong(Spec):
    """The positive, and keys of the last steps."""

    kind: Literal["draws_per_process"] = "draws_per_process"
    builds = ":make_part"
    gives = frozenset({"entries", "positive"})
    source = "MoCo, arXiv:1911.05722, section 3.2"


def make_part(dim: Any) -> Any:
    import torch

    from contralex.lookup.dictionary import Dictionary
    from contralex.lookup.slots import NegativeSource

    class Part(NegativeSource):
        queue: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("queue", torch.randn(12, dim))

        def forward(self, queries: Any, keys: Any, match: Any, step: Any) -> Any:
            own = keys.select_matching(queries, match).vectors.unsqueeze(1)
            drawn = torch.randint(12, (len(queries), 4), generator=step.generator("draw"))
            return Dictionary(own=torch.cat([own, self.queue[drawn]], dim=1))

    return Part()


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [Wrong]
