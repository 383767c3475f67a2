"""The random parameters of a view: plain values, drawn before any pixel is touched.

They are the numbers of torch's global generator, in the order in which torchvision's transforms draw theirs. So one
seed gives one view, whichever engine makes it, and leaves the generator in the same state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch

from contralex.kinds.views.augment import Augment, Crop, Jigsaw, Jitter, RandAugment
from contralex.kinds.views.chance import Chance
from contralex.kinds.views.crops import draw_height_crop
from contralex.kinds.views.rand_augment import ChosenOperation, TensorFlowRandAugment, TorchvisionRandAugment

ATTEMPTS = 10  # at a crop that fits into the image, as torchvision's RandomResizedCrop


@dataclass(frozen=True)
class Box:
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class ColourFactors:
    """How colours change. ``order``: of the four changes, by their numbers 0 to 3; None: that one is left out."""

    order: tuple[int, ...]
    brightness: float | None
    contrast: float | None
    saturation: float | None
    hue: float | None

    @property
    def factors(self) -> tuple[float | None, float | None, float | None, float | None]:
        """By the numbers of the changes."""
        return self.brightness, self.contrast, self.saturation, self.hue


@dataclass(frozen=True)
class Piece:
    """A piece of a jigsaw: the pixel at which it begins, and what happens to it."""

    top: int
    left: int
    then: ViewParameters


@dataclass(frozen=True)
class ViewParameters:
    """What happens to one view; an operation that does not happen has None, or is false.

    ``blur``: the standard deviation in pixels. ``pieces``: in the order in which the view holds them.
    """

    crop: Box | None = None
    jitter: ColourFactors | None = None
    gray: bool = False
    flip: bool = False
    blur: float | None = None
    solarize: bool = False
    rand_augment: Sequence[ChosenOperation] = field(default=())
    pieces: Sequence[Piece] = field(default=())


def draw_parameters(augment: Augment, names: Sequence[str], width: int, height: int) -> ViewParameters:
    """Parameters of the operations ``names`` for an image of this size, drawn from torch's global generator."""
    with Chance() as chance:
        return _draw(chance, augment, names, width, height)


def _draw(chance: Chance, augment: Augment, names: Sequence[str], width: int, height: int) -> ViewParameters:
    crop = jitter = blur = None
    gray = flip = solarize = False
    chosen: Sequence[ChosenOperation] = ()
    for at, name in enumerate(names):
        if name == "crop":
            crop = draw_box(chance, augment.crop, width, height)
            width = height = augment.crop.size
        elif name == "jitter" and augment.jitter is not None:
            # torchvision's RandomApply, which asks for a number, is there only where p is below 1.
            if augment.jitter.p == 1 or chance.fraction() < augment.jitter.p:
                jitter = draw_colour_factors(chance, augment.jitter)
        elif name == "gray" and augment.gray is not None:
            gray = chance.fraction() < augment.gray.p
        elif name == "flip" and augment.flip is not None:
            flip = chance.fraction() < augment.flip.p
        elif name == "blur" and augment.blur is not None:
            blur = chance.uniform(*augment.blur.sigma) if chance.fraction() < augment.blur.p else None
        elif name == "solarize" and augment.solarize is not None:
            solarize = chance.fraction() < augment.solarize.p
        elif name == "rand_augment" and augment.rand_augment is not None:
            chance.catch_up()
            chosen = rand_augment(augment.rand_augment).draw(width, height)
        elif name == "jigsaw" and augment.jigsaw is not None:
            pieces = _draw_pieces(chance, augment, augment.jigsaw, names[at + 1 :], width, height)
            return ViewParameters(crop, jitter, gray, flip, blur, solarize, chosen, pieces)
    return ViewParameters(crop, jitter, gray, flip, blur, solarize, chosen)


def draw_box(chance: Chance, crop: Crop, width: int, height: int) -> Box:
    """A random crop of an image of this size."""
    if crop.drawn == "height":
        return Box(*draw_height_crop(chance, crop.scale, crop.ratio, width, height))
    low, high = log_ratio(crop.ratio)
    area = height * width
    for _ in range(ATTEMPTS):
        target = area * chance.uniform(*crop.scale)
        ratio = torch.empty(1).fill_(chance.uniform(low, high)).exp_().item()  # math.exp rounds otherwise
        across, down = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < across <= width and 0 < down <= height:
            top = chance.below(height - down + 1)
            return Box(top, chance.below(width - across + 1), down, across)
    return _central_box(crop.ratio, width, height)


@lru_cache(maxsize=64)
def log_ratio(ratio: tuple[float, float]) -> tuple[float, float]:
    low, high = torch.log(torch.tensor(ratio)).tolist()  # in float32, as torchvision's
    return low, high


def _central_box(ratio: tuple[float, float], width: int, height: int) -> Box:
    """The middle of the image, as much of it as the ratios allow."""
    across, down = width, height
    if width / height < ratio[0]:
        down = round(width / ratio[0])
    elif width / height > ratio[1]:
        across = round(height * ratio[1])
    return Box((height - down) // 2, (width - across) // 2, down, across)


def draw_colour_factors(chance: Chance, jitter: Jitter) -> ColourFactors:
    """The order of the four changes, then a factor for each that can change anything."""
    order = tuple(chance.permutation(4))
    return ColourFactors(
        order,
        brightness=_draw_factor(chance, jitter.brightness),
        contrast=_draw_factor(chance, jitter.contrast),
        saturation=_draw_factor(chance, jitter.saturation),
        hue=chance.uniform(-jitter.hue, jitter.hue) if jitter.hue else None,
    )


def _draw_factor(chance: Chance, strength: float) -> float | None:
    between = factor_range(strength)
    return chance.uniform(*between) if between is not None else None


def factor_range(strength: float) -> tuple[float, float] | None:
    """The smallest and the largest factor; None where nothing changes."""
    return (max(1.0 - strength, 0.0), 1.0 + strength) if strength else None


def rand_augment(values: RandAugment) -> TensorFlowRandAugment | TorchvisionRandAugment:
    """The RandAugment whose operations and scale ``values.law`` names."""
    if values.law == "tensorflow":
        return TensorFlowRandAugment(
            values.ops, values.magnitude, values.p, values.translate, values.cutout, values.spread
        )
    return TorchvisionRandAugment(values.ops, values.magnitude, values.p)


def _draw_pieces(
    chance: Chance, augment: Augment, jigsaw: Jigsaw, names: Sequence[str], width: int, height: int
) -> Sequence[Piece]:
    grid, cell = jigsaw.grid, jigsaw.cell
    pieces = []
    for row in range(grid):
        for column in range(grid):
            left = column * width // grid + chance.below(width // grid - cell + 1)
            top = row * height // grid + chance.below(height // grid - cell + 1)
            pieces.append(Piece(top, left, _draw(chance, augment, names, cell, cell)))
    return tuple(pieces[index] for index in chance.permutation(len(pieces)))
