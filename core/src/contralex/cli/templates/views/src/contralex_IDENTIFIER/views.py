"""Crops with a hole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]

from contralex.plugin import Normalize, Views, describe_steps, to_tensor_steps


class CutoutViews(Views):
    """A crop, mirrored at random, in which a square of ``hole`` pixels around a random pixel is 0."""

    def __init__(
        self, size: int, hole: int, count: int = 2, flip: float = 0.5, normalize: Normalize | None = None
    ) -> None:
        self.count, self.hole = count, hole
        to_tensor = to_tensor_steps(normalize)
        crop = v2.RandomResizedCrop(size, scale=(0.2, 1.0))
        self.random = v2.Compose([crop, v2.RandomHorizontalFlip(flip), *to_tensor])
        self.fixed = v2.Compose([v2.Resize((size, size)), *to_tensor])

    def make(self, item: Any, view: int) -> Tensor:
        crop: Tensor = self.random(item)  # (3, H, W)
        top, left = (self._begin(side) for side in crop.shape[1:])
        crop[:, max(top, 0) : top + self.hole, max(left, 0) : left + self.hole] = 0
        return crop

    def _begin(self, side: int) -> int:
        """Where the hole begins; below 0 where it is cut off. Drawn from torch's generator, which is seeded for each
        sample and view."""
        return int(torch.randint(side, ())) - self.hole // 2

    def plain(self, item: Any) -> Tensor:
        made: Tensor = self.fixed(item)
        return made

    def plain_steps(self) -> list[str]:
        return describe_steps(self.fixed)
