"""Queries are gathered as further entries by all_gather, which carries no gradient."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "two_equal_one"
REASON = r"differ in the gradient"


class Wrong(Spec):
    """The positive, and keys of the last steps."""

    kind: Literal["gathers_without_gradient"] = "gathers_without_gradient"
    builds = ":make_part"
    gives = frozenset({"entries", "positive"})
    source = "MoCo, arXiv:1911.05722, section 3.2"


def make_part() -> Any:
    import torch
    import torch.distributed as dist

    from contralex.lookup import distributed
    from contralex.lookup.dictionary import Dictionary
    from contralex.lookup.slots import NegativeSource

    class Part(NegativeSource):
        def forward(self, queries: Any, keys: Any, match: Any, step: Any) -> Any:
            own = keys.select_matching(queries, match).vectors.unsqueeze(1)
            everyone = queries.vectors
            if distributed.world() > 1:
                parts = [torch.empty_like(everyone) for _ in range(distributed.world())]
                dist.all_gather(parts, everyone.detach())
                parts[distributed.rank()] = everyone
                everyone = torch.cat(parts)
            return Dictionary(own=own, shared=everyone)

    return Part()


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [Wrong]
