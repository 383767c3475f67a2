"""MAE's view: an image, and which of its patches are hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from contralex.plugin import Augment, CropViews, Group, Preprocessing, Views
from contralex_mae.spec import hidden_patches


class MaskedViews(Views):
    """An RGB image of PIL to (C + 1, H, W): an augmented crop, and a mask that is 1 where a patch is hidden.

    ``patch``: pixels of a patch's side. ``share``: the fraction of patches that is hidden. The mask, as the crop, is a
    function of the sample and the epoch.
    """

    count = 1
    names = ("masked image",)

    def __init__(self, augment: Augment, patch: int = 16, share: float = 0.75) -> None:
        self.crops = CropViews(groups={"image": Group(augment=augment)})
        self.patch = patch
        self.patches = (augment.crop.size // patch) ** 2
        self.hidden = hidden_patches(self.patches, share)

    def make(self, item: Any, view: int) -> Tensor:
        image = self.crops.make(item, 0)
        mask = torch.zeros(self.patches)
        mask[torch.randperm(self.patches)[: self.hidden]] = 1
        side = image.shape[-1] // self.patch
        pixels = mask.view(side, side).repeat_interleave(self.patch, 0).repeat_interleave(self.patch, 1)
        return torch.cat([image, pixels.unsqueeze(0)])

    def to_picture(self, made: Tensor, view: int, item: Any) -> Tensor:
        """The image, its hidden patches in grey."""
        hidden = made[-1:]
        return self.crops.to_picture(made[:-1], 0, item) * (1 - hidden) + 0.5 * hidden

    def describe_drawn(self, parameters: Any, view: int) -> Sequence[str]:
        return (f"{self.hidden} of {self.patches} patches are hidden",)

    def plain(self, item: Any) -> Tensor:
        return self.crops.plain(item)

    def preprocessing(self) -> Preprocessing | None:
        return self.crops.preprocessing()

    def plain_steps(self) -> Sequence[str]:
        return self.crops.plain_steps()
