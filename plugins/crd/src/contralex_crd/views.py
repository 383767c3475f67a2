"""One augmented image, several times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import ImageOps
from torch import Tensor

from contralex.plugin import Augment, CropViews, Group, Preprocessing, Views


class SameViews(Views):
    """One augmented RGB image of PIL, ``count`` times, as (3, size, size) float32.

    ``augment``: what happens to the image. ``pad``: black pixels that are put around it on each side first.
    """

    def __init__(self, augment: Augment, count: int = 2, pad: int = 0) -> None:
        self.count = count
        self.pad = pad
        self._image = CropViews(groups={"image": Group(augment=augment)})

    def draw(self, view: int) -> int:
        return 0  # every view draws the same random numbers, and so is the same tensor

    def make(self, item: Any, view: int) -> Tensor:
        return self._image.make(ImageOps.expand(item, self.pad) if self.pad else item, 0)

    def plain(self, item: Any) -> Tensor:
        return self._image.plain(item)

    def preprocessing(self) -> Preprocessing | None:
        return self._image.preprocessing()

    def plain_steps(self) -> Sequence[str]:
        return self._image.plain_steps()
