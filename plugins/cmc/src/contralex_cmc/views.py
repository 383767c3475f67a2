"""The colour channels of one augmented image, as views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from contralex.plugin import CropViews, Group, Views
from contralex_cmc.colours import SCALE, convert

if TYPE_CHECKING:
    from contralex_cmc.spec import Lab


class LabViews(Views):
    """View v has the v-th share of the channels; evaluation sees all of them, in the same order."""

    def __init__(self, spec: Lab) -> None:
        self.count = len(spec.split)
        self.split = spec.split
        self.space = spec.space
        self._rgb = CropViews(groups={"crop": Group(augment=spec.augment)})
        mean, std = SCALE[spec.space]
        self.mean = torch.tensor(spec.mean or mean).view(3, 1, 1)
        self.std = torch.tensor(spec.std or std).view(3, 1, 1)

    def draw(self, view: int) -> int:
        return 0  # channels of the same crop, the same mirror image

    def make(self, item: Any, view: int) -> Tensor:
        first = sum(self.split[:view])
        return self._channels(self._rgb.make(item, 0)).narrow(-3, first, self.split[view]).contiguous()

    def plain(self, item: Any) -> Tensor:
        return self._channels(self._rgb.plain(item))

    def _channels(self, rgb: Tensor) -> Tensor:
        return (convert(rgb, self.space) - self.mean) / self.std
