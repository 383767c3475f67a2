"""The entry module imports torch, which makes every command wait for it."""

from __future__ import annotations

from typing import Any, Literal

import torch  # the mistake

from contralex.plugin import Spec, hookimpl

FAILS = "imports_no_torch"
VERSION = torch.__version__
REASON = r"imports torch; put the part into another module"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["imports_torch"] = "imports_torch"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            return (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
