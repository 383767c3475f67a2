"""Keys are kept in a list beside the state, and the look-up writes it."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "looks_up_before_it_writes"
REASON = r"the same look-up gave .* it keeps something outside state"


class Wrong(Spec):
    """The positive, and keys of the last steps."""

    kind: Literal["keeps_a_list"] = "keeps_a_list"
    builds = ":make_part"
    gives = frozenset({"entries", "positive"})
    source = "MoCo, arXiv:1911.05722, section 3.2"


def make_part(dim: Any) -> Any:
    import torch

    from contralex.lookup.dictionary import Dictionary
    from contralex.lookup.slots import NegativeSource

    class Part(NegativeSource):
        def __init__(self) -> None:
            super().__init__()
            self.kept: list[Any] = [torch.randn(4, dim)]

        def forward(self, queries: Any, keys: Any, match: Any, step: Any) -> Any:
            own = keys.select_matching(queries, match).vectors.unsqueeze(1)
            self.kept = [*self.kept, keys.vectors.detach()][-2:]
            return Dictionary(own=own, shared=torch.cat(self.kept))

    return Part()


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [Wrong]
