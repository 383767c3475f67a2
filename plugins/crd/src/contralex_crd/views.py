"""One augmented image, several times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import ImageOps
from torch import Tensor

from contralex.plugin import CropViews, Group, Views

if TYPE_CHECKING:
    from contralex_crd.spec import Same


class SameViews(Views):
    """Every view draws the same random numbers, and so is the same tensor."""

    def __init__(self, spec: Same) -> None:
        self.count = spec.count
        self.pad = spec.pad
        self._image = CropViews(groups={"image": Group(augment=spec.augment)})

    def draw(self, view: int) -> int:
        return 0

    def make(self, item: Any, view: int) -> Tensor:
        return self._image.make(ImageOps.expand(item, self.pad) if self.pad else item, 0)

    def plain(self, item: Any) -> Tensor:
        return self._image.plain(item)
