"""The colour channels of one augmented image, as views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from contralex.plugin import Augment, CropViews, Group, Views
from contralex_cmc.colours import SCALE, convert

Channels = tuple[float, float, float]
_NAMES = {"lab": ("L", "a", "b"), "ydbdr": ("Y", "Db", "Dr")}


class LabViews(Views):
    """The colour channels of one augmented RGB image of PIL: view v has the v-th part of them. Evaluation sees all
    channels, in the same order.

    ``augment``: what happens to the image first. ``space``: CIE L*a*b* of D65, or luma and the chroma differences of
    SECAM. ``split``: channels of each view. ``mean`` is subtracted from the three channels, and ``std`` divides them;
    None: the middle, and half the width, of what colours can reach.
    """

    def __init__(
        self,
        augment: Augment,
        space: Literal["lab", "ydbdr"] = "lab",
        split: tuple[int, ...] = (1, 2),
        mean: Channels | None = None,
        std: Channels | None = None,
    ) -> None:
        self.count = len(split)
        self.split = split
        firsts = [sum(split[:view]) for view in range(len(split))]
        self.names = [
            ", ".join(_NAMES[space][first : first + width]) for first, width in zip(firsts, split, strict=True)
        ]
        self.space = space
        self._rgb = CropViews(groups={"crop": Group(augment=augment)})
        middle, half_width = SCALE[space]
        self.mean = torch.tensor(mean or middle).view(3, 1, 1)
        self.std = torch.tensor(std or half_width).view(3, 1, 1)

    def draw(self, view: int) -> int:
        return 0  # channels of the same crop, the same mirror image

    def make(self, item: Any, view: int) -> Tensor:
        first = sum(self.split[:view])
        return self._channels(self._rgb.make(item, 0)).narrow(-3, first, self.split[view]).contiguous()

    def to_picture(self, made: Tensor, view: int, item: Any) -> Tensor:
        """Each channel as a picture in grey, over what colours can reach."""
        which = slice(sum(self.split[:view]), sum(self.split[: view + 1]))
        middle, half_width = (torch.tensor(values[which]).view(-1, 1, 1) for values in SCALE[self.space])
        channels = made * self.std[which] + self.mean[which]
        return ((channels - middle) / half_width / 2 + 0.5).clamp(0, 1).unsqueeze(-3)

    def plain(self, item: Any) -> Tensor:
        return self._channels(self._rgb.plain(item))

    def plain_steps(self) -> Sequence[str]:
        return [*self._rgb.plain_steps(), f"RGB to {self.space}, normalised"]

    def _channels(self, rgb: Tensor) -> Tensor:
        return (convert(rgb, self.space) - self.mean) / self.std
