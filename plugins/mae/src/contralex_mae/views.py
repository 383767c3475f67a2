"""MAE's view: an image, and which of its patches are hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from contralex.plugin import CropViews, Group, Views

if TYPE_CHECKING:
    from contralex_mae.spec import Masked


class MaskedViews(Views):
    """An image to (C + 1, H, W): its channels, and the mask, which like the crop is of this sample and epoch."""

    count = 1

    def __init__(self, spec: Masked) -> None:
        self.crops = CropViews(groups={"image": Group(augment=spec.augment)})
        self.patch, self.patches, self.hidden = spec.patch, spec.patches, spec.hidden

    def make(self, item: Any, view: int) -> Tensor:
        image = self.crops.make(item, 0)
        mask = torch.zeros(self.patches)
        mask[torch.randperm(self.patches)[: self.hidden]] = 1
        side = image.shape[-1] // self.patch
        pixels = mask.view(side, side).repeat_interleave(self.patch, 0).repeat_interleave(self.patch, 1)
        return torch.cat([image, pixels.unsqueeze(0)])

    def plain(self, item: Any) -> Tensor:
        return self.crops.plain(item)
