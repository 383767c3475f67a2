"""Which patches of a view are masked: values that views of any kind may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from contralex.kinds.views.augment import Group, InOrder, Probability, expand_groups
from contralex.plugins.company import BLOCKS, ViewCompany, draw_scattered
from contralex.plugins.spec import Spec


class Masks(Spec):
    """Random patches of a view are masked: its ``mask`` (B, P) is true for them, row after row. The pixels stay, and
    the encoder decides what a masked patch is to it.

    iBOT (arXiv:2111.07832) draws for each crop by itself, DINOv2 (arXiv:2304.07193) for a batch.
    """

    shape: Literal["block", "random"] = "block"
    """``block``: rectangles are added until there are enough patches (BEiT, arXiv:2106.08254, Algorithm 1); ``random``:
    single patches."""
    patch: int = Field(gt=0, le=4096)
    """Pixels of a patch's side, which divides the crops that are masked."""
    ratio: Annotated[tuple[Probability, Probability], InOrder] = (0.1, 0.5)
    """The smallest and the largest fraction of a masked crop's patches that are masked."""
    p: Probability = 0.5
    """The probability that a crop is masked; with ``drawn: batch`` the fraction of crops that are."""
    drawn: Literal["crop", "batch"] = "crop"
    """Each ``crop`` draws for itself whether it is masked, and its ratio; or the crops of a ``batch`` draw together:
    exactly the fraction ``p`` of them is masked, with a ratio from each of equal parts of ``ratio``."""
    smallest: int | None = Field(None, gt=0, le=1_000_000)
    """Patches of the smallest block that is tried; null: the square of a third of the grid's shorter side, as iBOT
    has it (DINOv2: 4)."""
    groups: tuple[str, ...] | None = Field(None, min_length=1)
    """The groups whose views are masked; null: those that may be keys."""

    def model_post_init(self, context: object) -> None:
        if self.shape == "random" and self.smallest is not None:
            raise ValueError("smallest is for blocks, and shape is random; take smallest out, or use shape: block")

    def explained(self, views: Sequence[int]) -> ViewCompany:
        """For the numbers of the views that are masked."""
        low, high = self.ratio
        ratio = f"{low:.0%}" if low == high else f"{low:.0%} to {high:.0%}"
        kind = "in blocks" if self.shape == "block" else "one by one"
        crops = "in every crop" if self.p == 1 else f"in {self.p:.0%} of the crops"
        drawn = "each draws for itself" if self.drawn == "crop" else "a batch draws together"
        drawing = BLOCKS if self.shape == "block" else draw_scattered((low + high) / 2)
        lines = (f"{ratio} of the patches of {self.patch} px are hidden, {kind}", f"{crops}; {drawn}")
        return ViewCompany("mask", views, lines, drawing)


def find_masked_groups(groups: Mapping[str, Group], masks: Masks) -> list[str]:
    """The groups whose views are masked. Raises ValueError where a group is absent, or its crops have no such grid."""
    named = masks.groups if masks.groups is not None else [name for name, group in groups.items() if group.key]
    absent = [name for name in named if name not in groups]
    if absent:
        raise ValueError(f"masks.groups names {absent[0]}, and the groups are {', '.join(groups)}")
    for name, augment in expand_groups(groups).items():
        size = augment.crop.size
        if name in named and augment.jigsaw:
            raise ValueError(f"masks are for whole crops, and {name} has a jigsaw; name other groups in masks.groups")
        if name in named and (size % masks.patch or size < 2 * masks.patch):
            raise ValueError(
                f"masks.patch is {masks.patch}, and the crops of {name} have {size} pixels; take a divisor of {size} "
                f"that is smaller, or name the groups that are masked in masks.groups"
            )
    return list(named)
