"""The views of SLIP: an image, its caption, and further crops of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from contralex.plugin import Augment, CropViews, Group
from contralex_clip.tokens import Tokenizer
from contralex_clip.views import ImageTextViews


class ImageTextCropsViews(ImageTextViews):
    """View 0 is the image (3, H, W), view 1 the ids (``context``,) of its caption, views 2, 3, ... are ``count``
    ``crops`` of it (3, H, W). Evaluation sees the middle square (SLIP, arXiv:2112.12750; code: datasets.py, main.py).
    """

    def __init__(
        self, augment: Augment, crops: Augment, tokenizer: Tokenizer, count: int = 2, context: int = 77
    ) -> None:
        super().__init__(augment, tokenizer, square=True, context=context)
        groups = {"image": Group(augment=augment), "crop": Group(count=count, augment=crops)}
        self._images = CropViews(groups)
        self.count = 2 + count
        image, *others = self._images.names
        self.names = [image, "caption", *others]

    def make(self, item: Image.Image, view: int) -> Tensor:
        return super().make(item, view) if view == 1 else self._images.make(item, _number_of(view))

    def to_picture(self, made: Tensor, view: int, item: Image.Image) -> Tensor | str:
        return (
            super().to_picture(made, view, item) if view == 1 else self._images.to_picture(made, _number_of(view), item)
        )

    def describe_drawn(self, parameters: Any, view: int) -> Sequence[str]:
        return super().describe_drawn(parameters, view) if view == 1 else ()


def _number_of(view: int) -> int:
    """Among the views that are images."""
    return max(view - 1, 0)
