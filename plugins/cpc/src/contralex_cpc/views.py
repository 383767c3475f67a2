"""CPC's views: a grid of patches of an image, a window of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from contralex.plugin import ContralexError, Views, describe_steps, trim_long_image
from contralex_cpc.patch_augment import augment_patches

if TYPE_CHECKING:
    from contralex_cpc.spec import EachPatch


class PatchViews(Views):
    """An RGB image of PIL to a grid of overlapping patches (P, 3, patch, patch), row after row.

    The image's short side becomes ``resize`` pixels, of which a random square of ``crop`` is kept. Patches of ``patch``
    pixels are cut every ``stride``, augmented by ``each``, and of each a random square of ``patch_crop`` is kept.
    """

    count = 1
    names = ("patches",)

    def __init__(
        self,
        resize: int = 300,
        crop: int = 256,
        patch: int = 64,
        stride: int = 32,
        patch_crop: int = 60,
        flip: bool = True,
        gray: bool = True,
        each: EachPatch | None = None,
    ) -> None:
        self.patch, self.stride, self.patch_crop = patch, stride, patch_crop
        self.each = each
        to_tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
        to_gray = [v2.Grayscale(3)] if gray else []
        mirror = [v2.RandomHorizontalFlip()] if flip else []
        self._random = v2.Compose(
            [trim_long_image, v2.Resize(resize), v2.RandomCrop(crop), *mirror, *to_gray, *to_tensor]
        )
        self._plain = v2.Compose([trim_long_image, v2.Resize(resize), v2.CenterCrop(crop), *to_gray, *to_tensor])

    def make(self, item: Any, view: int) -> Tensor:
        patches = self._grid(self._random(item))
        if self.each:
            patches = augment_patches(patches, self.each)
        spare = self.patch - self.patch_crop
        if not spare:
            return patches
        # A random square of each patch, padded with zeros back to its size.
        corner = torch.randint(spare + 1, (len(patches), 2)).tolist()
        size = self.patch_crop
        kept = torch.stack([p[:, y : y + size, x : x + size] for p, (y, x) in zip(patches, corner, strict=True)])
        return F.pad(kept, (spare // 2, spare - spare // 2, spare // 2, spare - spare // 2))

    def to_picture(self, made: Tensor, view: int, item: Any) -> Tensor:
        return made.clamp(0, 1)

    def plain(self, item: Any) -> Tensor:
        return self._grid(self._plain(item))

    def plain_steps(self) -> Sequence[str]:
        return [*describe_steps(self._plain), f"overlapping patches of {self.patch} px, {self.stride} px apart"]

    def _grid(self, image: Tensor) -> Tensor:
        size, stride = self.patch, self.stride
        patches = image.unfold(1, size, stride).unfold(2, size, stride)  # (3, rows, columns, size, size)
        return patches.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


class WindowViews(Views):
    """A sequence (channels, time) to a random window (channels, length)."""

    count = 1
    names = ("window",)

    def __init__(self, length: int = 20480) -> None:
        self.length = length

    def make(self, item: Any, view: int) -> Tensor:
        sequence = self._check_length(item)
        start = int(torch.randint(sequence.shape[1] - self.length + 1, ()))
        return sequence[:, start : start + self.length]

    def plain(self, item: Any) -> Tensor:
        sequence = self._check_length(item)
        start = (sequence.shape[1] - self.length) // 2
        return sequence[:, start : start + self.length]

    def _check_length(self, item: Tensor) -> Tensor:
        if item.shape[1] < self.length:
            raise ContralexError(
                f"method.views.length is {self.length}, but a sequence of the data has only {item.shape[1]} samples; "
                "lower it, or leave short files out."
            )
        return item
