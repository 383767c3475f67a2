"""Making the part changes torch's default dtype for everyone."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "leaves_the_process_alone"
REASON = r"it changed .*the default dtype"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["sets_the_default_dtype"] = "sets_the_default_dtype"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    import torch
    from torch.nn import functional as F

    torch.set_default_dtype(torch.float64)

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            return (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
