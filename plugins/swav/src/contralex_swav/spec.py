"""The spec of SwAV's target generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from contralex import Spec

if TYPE_CHECKING:
    from contralex import BuildContext, TargetGenerator


class CodeQueue(Spec):
    """The last ``size`` embeddings of each key view, which help to share prototypes out where the batch is small.

    Filled from epoch ``start_epoch`` on, and used as soon as it is full.
    """

    size: int = Field(gt=0, description="embeddings of each key view, over all processes")
    start_epoch: int = Field(0, ge=0)


class Sinkhorn(Spec):
    """Codes: the key's scores over the prototypes, shared out equally among them over the whole batch.

    ``epsilon`` sharpens the codes (lower is sharper; .03 where the loss stays at ln(count)); ``iterations`` of
    row and column normalisation; ``queue`` for batches much smaller than the number of prototypes.
    """

    kind: Literal["sinkhorn"] = "sinkhorn"
    epsilon: float = Field(0.05, gt=0)
    iterations: int = Field(3, gt=0)
    queue: CodeQueue | None = None
    needs = {"negatives": frozenset({"prototypes"})}
    gives = frozenset({"weights"})
    source = "SwAV, arXiv:2006.09882, Eqs. 3-5 and section 4.1 (queue); code: main_swav.py distributed_sinkhorn"
    example = {"queue": {"size": 12}}

    def build(self, context: BuildContext) -> TargetGenerator:
        from contralex_swav.sinkhorn import SinkhornTargets

        return SinkhornTargets(self, context)
