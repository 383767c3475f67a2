"""The two views of a captioned image: its pixels, and its caption's tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from contralex.plugin import (
    Augment,
    CropViews,
    Group,
    Preprocessing,
    Views,
    describe_steps,
    read_preprocessing,
    to_tensor_steps,
    trim_long_image,
)
from contralex_clip.tokens import Tokenizer, Tokens


class ImageTextViews(Views):
    """View 0 is the image (3, H, W), view 1 the ids (``context``,) of its caption, which a data set leaves in
    ``image.info["caption"]``. ``square``: whether a random square is cropped before ``augment``."""

    count = 2
    names: Sequence[str] = ("image", "caption")

    def __init__(self, augment: Augment, tokenizer: Tokenizer, square: bool = True, context: int = 77) -> None:
        self.square = square
        self.tokens = Tokens(tokenizer, context)
        self._augmented = CropViews(groups={"image": Group(augment=augment)})
        self._plain = _evaluation(augment, square)

    def make(self, item: Image.Image, view: int) -> Tensor:
        if view == 1:
            return self.tokens(item.info["caption"])
        return self._augmented.make(_crop_square(item) if self.square else item, 0)

    def to_picture(self, made: Tensor, view: int, item: Image.Image) -> Tensor | str:
        return str(item.info["caption"]) if view == 1 else self._augmented.to_picture(made, 0, item)

    def describe_drawn(self, parameters: Any, view: int) -> Sequence[str]:
        return (f"{int(parameters.count_nonzero())} of {len(parameters)} tokens",) if view == 1 else ()

    def plain(self, item: Image.Image) -> Tensor:
        image: Tensor = self._plain(item)
        return image

    def preprocessing(self) -> Preprocessing | None:
        return read_preprocessing(self._plain)

    def plain_steps(self) -> Sequence[str]:
        return describe_steps(self._plain)


def _crop_square(image: Image.Image) -> Image.Image:
    """A random square, as large as the image allows."""
    side = min(image.size)
    left, top = (int(torch.randint(length - side + 1, ())) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def _evaluation(augment: Augment, square: bool) -> v2.Compose:
    """The middle square of the image whose short side has the crop's size, as CLIP's code evaluates; or else the whole
    image, squeezed into a square, as SigLIP's does."""
    crop, how = augment.crop, InterpolationMode(augment.crop.interpolation)
    size = crop.size
    steps: list[Callable[[Any], Any]] = (
        [trim_long_image, v2.Resize(size, how), v2.CenterCrop(size)] if square else [v2.Resize((size, size), how)]
    )
    return v2.Compose([*steps, *to_tensor_steps(augment.normalize)])
