"""Similarities and their softmax are computed in bfloat16, and only the loss is in float32."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "half_precision"
REASON = r"the look-up computes .*bfloat16"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["similarities_in_bf16"] = "similarities_in_bf16"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            scores = queries.vectors.bfloat16() @ targets.vectors.bfloat16().T
            return -scores.softmax(dim=1).diagonal().float().clamp(min=1e-6).log().mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
