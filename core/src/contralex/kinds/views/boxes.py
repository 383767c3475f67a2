"""Where in its image a crop lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from contralex.kinds.views.augment import Augment
from contralex.kinds.views.company import Companion
from contralex.kinds.views.parameters import Box, ViewParameters


class BoxCompanion(Companion):
    """``boxes`` (4,) of each crop, float32: top, left, height and width in pixels of its image; and ``flipped`` (),
    whether the crop is the mirror image of what lies there.

    ``augments``: those of the views. Operations of RandAugment may move pixels beside.
    """

    def __init__(self, augments: Sequence[Augment]) -> None:
        self._flips_first = [_flips_first(augment.order) for augment in augments]

    def draw(self, item: Any, view: int, parameters: ViewParameters, share: Any) -> dict[str, Tensor]:
        width, height = item.size
        box = parameters.crop or Box(0, 0, height, width)
        left = width - box.left - box.width if parameters.flip and self._flips_first[view] else box.left
        return {
            "boxes": torch.tensor([box.top, left, box.height, box.width], dtype=torch.float32),
            "flipped": torch.tensor(parameters.flip),
        }


def _flips_first(order: Sequence[str]) -> bool:
    """Whether the crop is taken out of the mirror image."""
    return "flip" in order and "crop" in order and order.index("flip") < order.index("crop")
