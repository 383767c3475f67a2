"""RandAugment by two laws: torchvision's 14 operations on a scale of 30; and, as Noisy Student's code has it, 15 or 16
operations on a scale of 10, beyond which magnitudes go on.

Which operations happen, and how strong, is drawn first; then they are applied to an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import nn
from torchvision.transforms.v2 import functional as F

_GREY = (128, 128, 128)  # what is moved in from outside, and what is cut out
_SCALE = 10.0
_SIGNED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_BINS = 31  # magnitudes of torchvision's scale


@dataclass(frozen=True)
class ChosenOperation:
    """An operation by its name. ``level``: its strength, below 0 for the other direction. ``at``: the middle of what is
    cut out, in pixels from the left and from the top."""

    name: str
    level: float = 0.0
    at: tuple[int, int] | None = None


Operation = Callable[[Image.Image, ChosenOperation], Image.Image]


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
        self.operations = operations(translate, cutout)

    def forward(self, image: Image.Image) -> Image.Image:
        return self.apply_to(image, self.draw(*image.size))

    def draw(self, width: int, height: int) -> Sequence[ChosenOperation]:
        """The operations for an image of this size, drawn from torch's global generator."""
        names, chosen = list(self.operations), []
        for _ in range(self.ops):
            name = names[int(torch.randint(len(names), ()))]
            if float(torch.rand(())) < self.p:
                chosen.append(draw_operation(name, self._level(), width, height))
        return tuple(chosen)

    def apply_to(self, image: Image.Image, chosen: Sequence[ChosenOperation]) -> Image.Image:
        for operation in chosen:
            image = self.operations[operation.name](image, operation)
        return image

    def _level(self) -> float:
        """In units of the scale's end."""
        if not self.spread:
            return self.magnitude / _SCALE
        magnitude = self.magnitude + self.spread * float(torch.randn(()))
        return min(max(magnitude, 0.0), _SCALE) / _SCALE


def draw_operation(name: str, level: float, width: int, height: int) -> ChosenOperation:
    """The rest of what is random: the direction of a move, the middle of what is cut out."""
    if name in _SIGNED:
        return ChosenOperation(name, level if float(torch.rand(())) < 0.5 else -level)
    if name == "cutout":
        return ChosenOperation(name, level, (int(torch.randint(width, ())), int(torch.randint(height, ()))))
    return ChosenOperation(name, level)


def operations(translate: int, cutout: int | None) -> Mapping[str, Operation]:
    """What each operation does to an image. Its level is 1 at the scale's end."""
    all_of_them: dict[str, Operation] = {
        "autocontrast": lambda image, _: ImageOps.autocontrast(image),
        "equalize": lambda image, _: ImageOps.equalize(image),
        "invert": lambda image, _: ImageOps.invert(image),
        "rotate": lambda image, chosen: image.rotate(30 * chosen.level, fillcolor=_GREY),
        "posterize": lambda image, chosen: _posterize(image, int(4 * chosen.level)),
        "solarize": lambda image, chosen: image.point(_table(lambda v: v if v < int(256 * chosen.level) else 255 - v)),
        "solarize_add": lambda image, chosen: image.point(
            _table(lambda v: min(v + int(110 * chosen.level), 255) if v < 128 else v)
        ),
        "color": lambda image, chosen: ImageEnhance.Color(image).enhance(_enhancement(chosen.level)),
        "contrast": lambda image, chosen: _contrast(image, _enhancement(chosen.level)),
        "brightness": lambda image, chosen: ImageEnhance.Brightness(image).enhance(_enhancement(chosen.level)),
        "sharpness": lambda image, chosen: ImageEnhance.Sharpness(image).enhance(_enhancement(chosen.level)),
        "shear_x": lambda image, chosen: _transform(image, 1, 0.3 * chosen.level, 0, 0, 1, 0),
        "shear_y": lambda image, chosen: _transform(image, 1, 0, 0, 0.3 * chosen.level, 1, 0),
        "translate_x": lambda image, chosen: _transform(image, 1, 0, translate * chosen.level, 0, 1, 0),
        "translate_y": lambda image, chosen: _transform(image, 1, 0, 0, 0, 1, translate * chosen.level),
    }
    if cutout is not None:
        all_of_them["cutout"] = lambda image, chosen: _cut_out(image, chosen.at or (0, 0), int(cutout * chosen.level))
    return all_of_them


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


def _cut_out(image: Image.Image, at: tuple[int, int], reach: int) -> Image.Image:
    """A grey square that reaches so far from a pixel."""
    x, y = at
    copy = image.copy()
    if reach:
        ImageDraw.Draw(copy).rectangle((x - reach, y - reach, x + reach - 1, y + reach - 1), fill=_GREY)
    return copy


class TorchvisionRandAugment:
    """torchvision's RandAugment in two steps: ``ops`` times one of 14 operations, each with probability ``p``."""

    def __init__(self, ops: int, magnitude: int, p: float) -> None:
        self.ops, self.magnitude, self.p = ops, magnitude, p

    def draw(self, width: int, height: int) -> Sequence[ChosenOperation]:
        """The operations for an image of this size, drawn from torch's global generator as torchvision draws them."""
        levels = self._levels(width, height)
        names, chosen = list(levels), []
        for _ in range(self.ops):
            # RandomApply, which asks for a number, stands around the operation only where p is below 1.
            if self.p < 1 and float(torch.rand(1)) >= self.p:
                continue
            name = names[int(torch.randint(len(names), ()))]
            level, signed = levels[name]
            chosen.append(ChosenOperation(name, -level if signed and float(torch.rand(())) <= 0.5 else level))
        return tuple(chosen)

    def apply_to(self, image: Image.Image, chosen: Sequence[ChosenOperation]) -> Image.Image:
        for operation in chosen:
            image = _TORCHVISION[operation.name](image, operation.level)
        return image

    def _levels(self, width: int, height: int) -> dict[str, tuple[float, bool]]:
        """For each operation its strength at this magnitude, and whether its direction is drawn. In its order."""

        def at(low: float, high: float) -> float:
            return float(torch.linspace(low, high, _BINS)[self.magnitude])

        bits = (8 - (torch.arange(_BINS) / ((_BINS - 1) / 4))).round()
        return {
            "identity": (0.0, False),
            "shear_x": (at(0.0, 0.3), True),
            "shear_y": (at(0.0, 0.3), True),
            "translate_x": (at(0.0, 150.0 / 331.0 * width), True),
            "translate_y": (at(0.0, 150.0 / 331.0 * height), True),
            "rotate": (at(0.0, 30.0), True),
            "brightness": (at(0.0, 0.9), True),
            "color": (at(0.0, 0.9), True),
            "contrast": (at(0.0, 0.9), True),
            "sharpness": (at(0.0, 0.9), True),
            "posterize": (float(bits[self.magnitude]), False),
            "solarize": (at(1.0, 0.0), False),
            "autocontrast": (0.0, False),
            "equalize": (0.0, False),
        }


def _affine(image: Image.Image, translate: tuple[int, int], shear: tuple[float, float], middle: bool) -> Image.Image:
    centre = None if middle else [0.0, 0.0]
    moved: Image.Image = F.affine(image, 0.0, list(translate), 1.0, list(shear), center=centre)
    return moved


_TORCHVISION: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, _: image,
    "shear_x": lambda image, level: _affine(image, (0, 0), (math.degrees(math.atan(level)), 0.0), False),
    "shear_y": lambda image, level: _affine(image, (0, 0), (0.0, math.degrees(math.atan(level))), False),
    "translate_x": lambda image, level: _affine(image, (int(level), 0), (0.0, 0.0), True),
    "translate_y": lambda image, level: _affine(image, (0, int(level)), (0.0, 0.0), True),
    "rotate": F.rotate,
    "brightness": lambda image, level: F.adjust_brightness(image, 1.0 + level),
    "color": lambda image, level: F.adjust_saturation(image, 1.0 + level),
    "contrast": lambda image, level: F.adjust_contrast(image, 1.0 + level),
    "sharpness": lambda image, level: F.adjust_sharpness(image, 1.0 + level),
    "posterize": lambda image, level: F.posterize(image, int(level)),
    "solarize": lambda image, level: F.solarize(image, 255.0 * level),
    "autocontrast": lambda image, _: F.autocontrast(image),
    "equalize": lambda image, _: F.equalize(image),
}
