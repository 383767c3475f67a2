"""The random crop of TensorFlow's input pipelines, whose law is not torchvision's."""

from __future__ import annotations

import math

from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from contralex.kinds.views.chance import Chance

_ATTEMPTS = 100


class HeightCrop(nn.Module):
    """A crop whose height is drawn uniformly, where torchvision draws its area; then it is resized.

    width/height is uniform in ``ratio``, and the height uniform between those of the smallest area of ``scale`` and of
    the largest crop that fits. Where none fits in a hundred attempts, it is the whole image. The code is TensorFlow's
    sample_distorted_bounding_box_op.cc, as SimCLR's data_util.py calls it; its positions leave out the last row and the
    last column.
    """

    def __init__(
        self, size: int, scale: tuple[float, float], ratio: tuple[float, float], interpolation: InterpolationMode
    ) -> None:
        super().__init__()
        self.size, self.scale, self.ratio, self.interpolation = size, scale, ratio, interpolation

    def forward(self, image: Image.Image) -> Image.Image:
        with Chance() as chance:
            top, left, height, width = draw_height_crop(chance, self.scale, self.ratio, *image.size)
        crop: Image.Image = F.resized_crop(image, top, left, height, width, [self.size] * 2, self.interpolation)
        return crop


def draw_height_crop(
    chance: Chance, scale: tuple[float, float], ratios: tuple[float, float], width: int, height: int
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop of such an image."""
    smallest, largest = (fraction * width * height for fraction in scale)
    for _ in range(_ATTEMPTS):
        ratio = chance.uniform(*ratios)
        low, high = (round(math.sqrt(area / ratio)) for area in (smallest, largest))
        high = min(high, height, int((width + 0.5) / ratio))
        rows = low + chance.below(high - low + 1) if low < high else high
        # Rounding may have left the bounds: one row more, or less, comes back into them.
        rows += (rows * round(rows * ratio) < smallest) - (rows * round(rows * ratio) > largest)
        columns = round(rows * ratio)
        if smallest <= rows * columns <= largest and 0 < rows <= height and 0 < columns <= width:
            return _position(chance, height - rows), _position(chance, width - columns), rows, columns
    return 0, 0, height, width


def _position(chance: Chance, room: int) -> int:
    return chance.below(room) if room else 0
