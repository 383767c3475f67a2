"""CPC's views: a grid of patches of an image, a window of a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from contralex.plugin import ContralexError, Views, trim_long_image
from contralex_cpc.each import augmented

if TYPE_CHECKING:
    from contralex_cpc.spec import Patches, Window


class PatchViews(Views):
    """An image to patches (P, 3, patch, patch), row after row."""

    count = 1

    def __init__(self, spec: Patches) -> None:
        self.spec = spec
        numbers = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
        gray = [v2.Grayscale(3)] if spec.gray else []
        flip = [v2.RandomHorizontalFlip()] if spec.flip else []
        self._random = v2.Compose(
            [trim_long_image, v2.Resize(spec.resize), v2.RandomCrop(spec.crop), *flip, *gray, *numbers]
        )
        self._plain = v2.Compose([trim_long_image, v2.Resize(spec.resize), v2.CenterCrop(spec.crop), *gray, *numbers])

    def make(self, item: Any, view: int) -> Tensor:
        patches = self._grid(self._random(item))
        if self.spec.each:
            patches = augmented(patches, self.spec.each)
        spare = self.spec.patch - self.spec.patch_crop
        if not spare:
            return patches
        # A random square of each patch, padded with zeros back to its size: which one tells nothing of its place.
        corner = torch.randint(spare + 1, (len(patches), 2)).tolist()
        size = self.spec.patch_crop
        kept = torch.stack([p[:, y : y + size, x : x + size] for p, (y, x) in zip(patches, corner, strict=True)])
        return F.pad(kept, (spare // 2, spare - spare // 2, spare // 2, spare - spare // 2))

    def plain(self, item: Any) -> Tensor:
        return self._grid(self._plain(item))

    def _grid(self, image: Tensor) -> Tensor:
        size, stride = self.spec.patch, self.spec.stride
        patches = image.unfold(1, size, stride).unfold(2, size, stride)  # (3, rows, columns, size, size)
        return patches.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


class WindowViews(Views):
    """A sequence (channels, time) to a window (channels, length)."""

    count = 1

    def __init__(self, spec: Window) -> None:
        self.length = spec.length

    def make(self, item: Any, view: int) -> Tensor:
        sequence = self._long_enough(item)
        start = int(torch.randint(sequence.shape[1] - self.length + 1, ()))
        return sequence[:, start : start + self.length]

    def plain(self, item: Any) -> Tensor:
        sequence = self._long_enough(item)
        start = (sequence.shape[1] - self.length) // 2
        return sequence[:, start : start + self.length]

    def _long_enough(self, item: Tensor) -> Tensor:
        if item.shape[1] < self.length:
            raise ContralexError(
                f"method.views.length is {self.length}, but a sequence of the data has only {item.shape[1]} samples; "
                "lower it, or leave short files out."
            )
        return item
