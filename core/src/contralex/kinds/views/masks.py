"""Masks of patches, as the masked image models draw them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from contralex.kinds.views.chance import Chance
from contralex.kinds.views.company import Companion
from contralex.kinds.views.mask_specs import Masks

_ATTEMPTS = 10  # at one more block
_ASPECT = math.log(0.3), math.log(1 / 0.3)  # of a block's height/width


class MaskCompanion(Companion):
    """``mask`` (P,) of the views in ``grids``, which has the rows and columns of patches of each; and ``masked`` (M,),
    the positions of the masked patches, then -1 up to as many as a mask may have, so that a batch is a table whose size
    nobody has to read from a GPU."""

    def __init__(self, masks: Masks, grids: Mapping[int, tuple[int, int]]) -> None:
        self._masks = masks
        self._grids = grids
        self._order = {view: number for number, view in enumerate(grids)}

    @property
    def shares_draws(self) -> bool:
        return self._masks.drawn == "batch"

    def draw_for_batch(self, size: int, generator: torch.Generator) -> Sequence[Any]:
        """For each sample, the fraction of patches that are masked in each of its views: 0 in crops that are not.

        The crops of all views are drawn together (DINOv2, collate.py: ``collate_data_and_cast``).
        """
        crops = size * len(self._grids)
        masked = int(crops * self._masks.p)
        bounds = torch.linspace(*self._masks.ratio, masked + 1)
        ratios = torch.zeros(crops)
        ratios[:masked] = bounds[:-1] + torch.rand(masked, generator=generator) * bounds.diff()
        shares: list[list[float]] = ratios[torch.randperm(crops, generator=generator)].view(size, -1).tolist()
        return shares

    def draw(self, item: Any, view: int, parameters: Any, share: Any) -> dict[str, Tensor]:
        if view not in self._grids:
            return {}
        rows, columns = self._grids[view]
        most = int(self._masks.ratio[1] * rows * columns)
        with Chance() as chance:
            if share is not None:
                ratio = share[self._order[view]]
            else:
                is_masked = chance.fraction() < self._masks.p
                ratio = chance.uniform(*self._masks.ratio) if is_masked else 0.0
            wanted = min(int(ratio * rows * columns), most)  # the ratio is rounded to float32
            if self._masks.shape == "block":
                mask = draw_block_mask(chance, rows, columns, wanted, self._masks.smallest)
        if self._masks.shape == "random":
            mask = draw_random_mask(rows * columns, wanted)
        return {"mask": mask, "masked": _list_positions(mask, most)}


def _list_positions(mask: Tensor, most: int) -> Tensor:
    """(most,) the positions that are true in ``mask`` (P,), then -1."""
    positions = mask.nonzero().flatten()
    return torch.cat([positions, positions.new_full((most - len(positions),), -1)])


def draw_random_mask(patches: int, wanted: int) -> Tensor:
    """(P,) bool, ``wanted`` of them true, drawn from torch's global generator."""
    mask = torch.zeros(patches, dtype=torch.bool)
    mask[torch.randperm(patches)[:wanted]] = True
    return mask


def draw_block_mask(chance: Chance, rows: int, columns: int, wanted: int, smallest: int | None = None) -> Tensor:
    """(P,) bool, row after row, at most ``wanted`` of them true: rectangles are added until there are as many.

    The area of a rectangle is uniform between ``smallest`` and what is missing, the logarithm of its height/width
    uniform too, and so is its place. One that covers nothing new, or too much, is drawn again; where ten in a row are,
    the mask has fewer patches. BEiT, arXiv:2106.08254, Algorithm 1; iBOT, loader.py: ``ImageFolderMask``.
    """
    if smallest is None:
        smallest = (min(rows, columns) // 3) ** 2
    mask = [0] * (rows * columns)
    missing = wanted
    while missing > 0:
        block = _draw_block(chance, rows, columns, missing, smallest, mask)
        if block is None:
            break
        for at in block:
            mask[at] = 1
        missing = wanted - sum(mask)
    return torch.tensor(mask, dtype=torch.bool)


def _draw_block(
    chance: Chance, rows: int, columns: int, missing: int, smallest: int, mask: Sequence[int]
) -> list[int] | None:
    """The patches of one more block; None where no attempt adds one to ``missing`` patches."""
    for _ in range(_ATTEMPTS):
        area = chance.uniform(smallest, missing)
        aspect = math.exp(chance.uniform(*_ASPECT))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= rows or width >= columns:
            continue
        top, left = chance.below(rows - height + 1), chance.below(columns - width + 1)
        block = [row * columns + at for row in range(top, top + height) for at in range(left, left + width)]
        if 0 < len(block) - sum(mask[at] for at in block) <= missing:
            return block
    return None
