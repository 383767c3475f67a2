"""The place of the positive is counted in this process's rows, and keys are those of every process."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "two_equal_one"
REASON = r"one process and process . of two differ in the loss,"
ONLY = "in_batch"


class Wrong(Spec):
    """What should be found, wrongly."""

    kind: Literal["label_without_offset"] = "label_without_offset"
    builds = ":make_part"
    needs = {"negatives": frozenset({"positive"})}
    gives = frozenset({"index"})
    source = "DINO, arXiv:2104.14294, Eq. 4"


def make_part() -> Any:
    import torch

    from contralex.lookup.slots import TargetGenerator
    from contralex.lookup.values import Targets

    class Part(TargetGenerator):
        def forward(self, queries: Any, keys: Any, dictionary: Any, match: Any, step: Any) -> Any:
            return Targets(index=torch.arange(len(queries)))

    return Part()


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [Wrong]
