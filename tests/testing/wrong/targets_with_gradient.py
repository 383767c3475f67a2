"""Targets are computed from the queries without stopping the gradient."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "no_gradient_leaks"
REASON = r"targets.weights carries a gradient"


class Wrong(Spec):
    """What should be found, wrongly."""

    kind: Literal["targets_with_gradient"] = "targets_with_gradient"
    builds = ":make_part"
    needs = {"negatives": frozenset({"positive"})}
    gives = frozenset({"weights"})
    source = "DINO, arXiv:2104.14294, Eq. 4"


def make_part() -> Any:
    from contralex.lookup.slots import TargetGenerator
    from contralex.lookup.values import Targets

    class Part(TargetGenerator):
        def forward(self, queries: Any, keys: Any, dictionary: Any, match: Any, step: Any) -> Any:
            return Targets(weights=dictionary.scores(queries.vectors).softmax(dim=1))

    return Part()


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [Wrong]
