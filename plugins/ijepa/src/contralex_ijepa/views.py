"""I-JEPA's view: a crop, the places of its context block, and those of its target blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from contralex.plugin import Augment, Companion, CropViews, Group, ViewsInCompany
from contralex_ijepa.blocks import Block, Sample, block_size
from contralex_ijepa.spec import ContextBlock, TargetBlocks

_ATTEMPTS = 20  # at a context, before it keeps the patches of one target more
_TARGETS = TargetBlocks()
_CONTEXT = ContextBlock()


class BlockViews(ViewsInCompany):
    """An RGB image of PIL to an augmented crop, with the company that :class:`BlockCompanion` draws.

    ``patch``: pixels of a patch's side.
    """

    def __init__(
        self, augment: Augment, patch: int = 16, targets: TargetBlocks = _TARGETS, context: ContextBlock = _CONTEXT
    ) -> None:
        self.blocks = BlockCompanion(augment.crop.size // patch, patch, targets, context)
        super().__init__(CropViews(groups={"image": Group(augment=augment)}), [self.blocks])

    def describe_drawn(self, parameters: Any, view: int) -> Sequence[str]:
        company: Mapping[str, Tensor] = parameters.company
        blocks, places = company["targets"].shape
        return (
            *super().describe_drawn(parameters, view),
            f"{len(company['context'])} of {self.blocks.rows**2} patches are the context",
            f"{blocks} blocks of {places} patches are predicted",
        )


class BlockCompanion(Companion):
    """``context`` (C,), the places of the context, row after row; ``targets`` (K, T), those of each target block; and
    ``patch`` (), pixels of a patch's side.

    The images of a batch draw together: their blocks have one size, and their contexts are cut to the smallest of them
    (code: ijepa multiblock.py). ``rows``: of the grid of patches, a square.
    """

    def __init__(self, rows: int, patch: int, targets: TargetBlocks = _TARGETS, context: ContextBlock = _CONTEXT):
        self.rows, self.patch = rows, patch
        self._targets, self._context = targets, context

    @property
    def shares_draws(self) -> bool:
        return True

    def draw_for_batch(self, size: int, generator: torch.Generator) -> Sequence[Sample]:
        """The blocks of each image of the batch."""
        part, other = torch.rand(2, generator=generator).tolist()
        target = block_size(
            self.rows, self.rows, _between(self._targets.scale, part), _between(self._targets.aspect, part)
        )
        context = block_size(self.rows, self.rows, _between(self._context.scale, other), 1.0)
        corners = self._draw_corners((size, self._targets.count), target, generator)
        own = [tuple(Block(top, left, *target) for top, left in image) for image in corners.tolist()]
        at, avoided, counts = self._place_contexts(self._cover(corners, target), context, generator)
        kept = int(counts.min())
        return [
            Sample(targets, Block(top, left, *context), without, kept)
            for targets, (top, left), without in zip(own, at.tolist(), avoided.tolist(), strict=True)
        ]

    def draw(self, item: Any, view: int, parameters: Any, share: Sample) -> dict[str, Tensor]:
        return {
            "context": torch.tensor(share.context_places(self.rows)),
            "targets": torch.tensor([list(block.places(self.rows)) for block in share.targets]),
            "patch": torch.tensor(self.patch),
        }

    def _draw_corners(self, shape: tuple[int, ...], block: tuple[int, int], generator: torch.Generator) -> Tensor:
        """(*shape, 2) first rows and columns of blocks. The last ones that fit are never drawn, as in the code."""
        return torch.stack([torch.randint(self.rows - length, shape, generator=generator) for length in block], dim=-1)

    def _cover(self, corners: Tensor, block: tuple[int, int]) -> Tensor:
        """(..., rows, rows) whether a patch is in the block at a corner (..., 2)."""
        numbers = torch.arange(self.rows)
        down, right = (
            (numbers >= first) & (numbers < first + length)
            for first, length in zip(corners.unsqueeze(-1).unbind(-2), block, strict=True)
        )
        return down.unsqueeze(-1) & right.unsqueeze(-2)

    def _place_contexts(
        self, targets: Tensor, block: tuple[int, int], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Corners (B, 2) of contexts of more than the least number of patches that are in none of the first ``avoided``
        (B,) targets (B, K, rows, rows), and their numbers of patches (B,)."""
        size, most = targets.shape[:2]
        corners = torch.zeros(size, 2, dtype=torch.long)
        avoided, counts = torch.zeros(2, size, dtype=torch.long)
        unplaced = torch.arange(size)
        for without in range(most, -1, -1):
            for _ in range(_ATTEMPTS):
                drawn = self._draw_corners((len(unplaced),), block, generator)
                free = self._cover(drawn, block) & ~targets[unplaced, :without].any(dim=1)
                corners[unplaced], avoided[unplaced], counts[unplaced] = drawn, without, free.sum(dim=(1, 2))
                unplaced = unplaced[counts[unplaced] <= self._context.more_than]
                if not len(unplaced):
                    return corners, avoided, counts
        raise AssertionError("the spec sees to it that a context that avoids no target has enough patches")


def _between(ends: tuple[float, float], part: float) -> float:
    return ends[0] + part * (ends[1] - ends[0])
