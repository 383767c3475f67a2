"""RandAugment as Noisy Student's code has it: 15 or 16 operations on a scale of 10, beyond which magnitudes go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import nn

_GREY = (128, 128, 128)  # what is moved in from outside, and what is cut out
_SCALE = 10.0

Operation = Callable[[Image.Image, float], Image.Image]


class TensorFlowRandAugment(nn.Module):
    """``ops`` times one operation, all equally likely, with probability ``p`` (google-research/noisystudent:
    randaugment.py; magnitudes of that file). With a ``spread``, magnitudes are normal, within 0 and 10 (timm).

    ``magnitude``: on a scale of 10. ``translate`` and ``cutout``: pixels at magnitude 10, for moves and for the grey
    square of a 16th operation.
    """

    def __init__(
        self,
        ops: int = 2,
        magnitude: float = 9,
        p: float = 1.0,
        translate: int = 100,
        cutout: int | None = None,
        spread: float = 0.0,
    ) -> None:
        super().__init__()
        self.ops, self.magnitude, self.p, self.spread = ops, float(magnitude), p, spread
        self.operations = list(operations(translate, cutout).values())

    def forward(self, image: Image.Image) -> Image.Image:
        for _ in range(self.ops):
            chosen = self.operations[int(torch.randint(len(self.operations), ()))]
            if float(torch.rand(())) < self.p:
                image = chosen(image, self._level())
        return image

    def _level(self) -> float:
        """In units of the scale's end."""
        if not self.spread:
            return self.magnitude / _SCALE
        magnitude = self.magnitude + self.spread * float(torch.randn(()))
        return min(max(magnitude, 0.0), _SCALE) / _SCALE


def operations(translate: int, cutout: int | None) -> Mapping[str, Operation]:
    """Each operation of an image and a level, which is 1 at the scale's end."""
    all_of_them: dict[str, Operation] = {
        "autocontrast": lambda image, _: ImageOps.autocontrast(image),
        "equalize": lambda image, _: ImageOps.equalize(image),
        "invert": lambda image, _: ImageOps.invert(image),
        "rotate": lambda image, level: image.rotate(_random_sign(30 * level), fillcolor=_GREY),
        "posterize": lambda image, level: _posterize(image, int(4 * level)),
        "solarize": lambda image, level: image.point(_table(lambda v: v if v < int(256 * level) else 255 - v)),
        "solarize_add": lambda image, level: image.point(
            _table(lambda v: min(v + int(110 * level), 255) if v < 128 else v)
        ),
        "color": lambda image, level: ImageEnhance.Color(image).enhance(_enhancement(level)),
        "contrast": lambda image, level: _contrast(image, _enhancement(level)),
        "brightness": lambda image, level: ImageEnhance.Brightness(image).enhance(_enhancement(level)),
        "sharpness": lambda image, level: ImageEnhance.Sharpness(image).enhance(_enhancement(level)),
        "shear_x": lambda image, level: _transform(image, 1, _random_sign(0.3 * level), 0, 0, 1, 0),
        "shear_y": lambda image, level: _transform(image, 1, 0, 0, _random_sign(0.3 * level), 1, 0),
        "translate_x": lambda image, level: _transform(image, 1, 0, _random_sign(translate * level), 0, 1, 0),
        "translate_y": lambda image, level: _transform(image, 1, 0, 0, 0, 1, _random_sign(translate * level)),
    }
    if cutout is not None:
        all_of_them["cutout"] = lambda image, level: _cut_out(image, int(cutout * level))
    return all_of_them


def _random_sign(value: float) -> float:
    return value if float(torch.rand(())) < 0.5 else -value


def _enhancement(level: float) -> float:
    return 1.8 * level + 0.1


def _table(function: Callable[[int], int]) -> list[int]:
    return [function(value) for value in range(256)] * 3


def _transform(image: Image.Image, *affine: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, affine, fillcolor=_GREY)


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    if bits >= 8:
        return image
    return image.point(_table(lambda value: value >> (8 - bits) << (8 - bits)))


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    """From the grey that the code takes for the mean, which is the number of pixels by 256."""
    grey = min(image.width * image.height // 256, 255)
    return Image.blend(Image.new("RGB", image.size, (grey, grey, grey)), image, factor)


def _cut_out(image: Image.Image, reach: int) -> Image.Image:
    """A grey square that reaches so far from a random pixel."""
    x, y = (int(torch.randint(length, ())) for length in image.size)
    copy = image.copy()
    if reach:
        ImageDraw.Draw(copy).rectangle((x - reach, y - reach, x + reach - 1, y + reach - 1), fill=_GREY)
    return copy
