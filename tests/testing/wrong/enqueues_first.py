"""Keys are enqueued before the look-up, so that the positive is among the negatives."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "looks_up_before_it_writes"
REASON = r"the look-up itself changed negatives\.queue; write it in update"


class Wrong(Spec):
    """The positive, and keys of the last steps."""

    kind: Literal["enqueues_first"] = "enqueues_first"
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
            self.queue.copy_(torch.cat([keys.vectors.detach(), self.queue])[:12])
            return Dictionary(own=own, shared=self.queue.clone())

    return Part()


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [Wrong]
