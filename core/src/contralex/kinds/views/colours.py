"""Changes of colour as Pillow makes them, on many images at once and in place.

Pixels are float32 tensors (N, 3, H, W) of whole numbers from 0 to 255: a float holds each product below exactly, and
vectorised float arithmetic is several times faster than Pillow's loops over bytes. Every change ends in whole
numbers again, as Pillow's does. Factors are a list with one number for each image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)  # Pillow's, of ITU-R 601-2: sums of them with bytes are exact
_FULL = 255.0


def adjust_brightness(pixels: Tensor, factors: Sequence[float]) -> Tensor:
    """``factor`` times the pixels."""
    pixels.mul_(_column(factors, pixels))
    return _to_bytes(pixels, factors)


def adjust_contrast(pixels: Tensor, factors: Sequence[float]) -> Tensor:
    """From the mean grey level of each image, ``factor`` times as far."""
    grey = luma(pixels)
    # Rows first: the sum of a row is exact in float32, that of a large image is not.
    mean = grey.sum(-1).double().sum(-1).div_(grey.shape[-1] * grey.shape[-2]).add_(0.5).floor_()
    return _blend(mean.to(pixels.dtype).view(-1, 1, 1, 1), pixels, factors)


def adjust_saturation(pixels: Tensor, factors: Sequence[float]) -> Tensor:
    """From each pixel's grey level, ``factor`` times as far."""
    return _blend(luma(pixels).unsqueeze(1), pixels, factors)


def to_gray(pixels: Tensor) -> Tensor:
    """The grey level in all three channels."""
    return pixels.copy_(luma(pixels).unsqueeze(1))


def solarize(pixels: Tensor, threshold: float) -> Tensor:
    """Values that reach the threshold are inverted."""
    reached = torch.ge(pixels, threshold, out=torch.empty_like(pixels))
    return pixels.lerp_(_FULL - pixels, reached)


def luma(pixels: Tensor) -> Tensor:
    """(N, H, W) grey levels."""
    red, green, blue = pixels.unbind(1)
    grey = red * _LUMA[0]
    return grey.add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2]).add_(0.5).floor_()


def _blend(other: Tensor, pixels: Tensor, factors: Sequence[float]) -> Tensor:
    pixels.sub_(other).mul_(_column(factors, pixels)).add_(other)
    return _to_bytes(pixels, factors)


def _to_bytes(pixels: Tensor, factors: Sequence[float]) -> Tensor:
    """Without their fractions, as C converts them. Only a factor above 1 leads out of the range."""
    if max(factors) > 1:
        pixels.clamp_(0, _FULL)
    return pixels.floor_()


def _column(numbers: Sequence[float], like: Tensor) -> Tensor | float:
    """One number for each image; for a single image, which is the usual case, a plain number, because it is faster."""
    if len(numbers) == 1:
        return torch.tensor(numbers[0], dtype=like.dtype).item()
    return torch.tensor(numbers, dtype=like.dtype, device=like.device).view(-1, 1, 1, 1)


def adjust_hue(pixels: Tensor, factors: Sequence[float]) -> Tensor:
    """Turn the hue by ``factor`` of a full turn, by way of Pillow's HSV, whose three values are bytes."""
    value = pixels.amax(1)
    chroma = value - pixels.amin(1)
    saturation = _floor_of_255(chroma / value.clamp(min=1))
    hue = _hue(pixels, value, chroma)
    steps = _column([float(int(factor * 255) % 256) for factor in factors], hue)
    steps = steps if isinstance(steps, float) else steps.view(-1, 1, 1)
    hue.add_(steps).mul_(1 / 256).frac_().mul_(256)  # a byte that overflows begins anew
    return _from_hsv(hue, saturation, value, out=pixels)


def _hue(pixels: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """(N, H, W) the hue as a byte: of the largest channel, and of how far the two others are from it.

    It is rounded where, and to what, Pillow rounds it: from float64 to float32 twice on the way.
    """
    distance = (value.unsqueeze(1) - pixels).div_(chroma.clamp(min=1).unsqueeze(1))
    from_red, from_green, from_blue = distance.unbind(1)
    red, green, _ = pixels.unbind(1)
    is_red = torch.eq(red, value, out=torch.empty_like(value))
    is_green = torch.eq(green, value, out=torch.empty_like(value))
    # Masks of 0 and 1 as weights of lerp: exact, and faster than torch.where, which takes bytes.
    plus = torch.lerp(from_green, from_red, is_green).lerp_(from_blue, is_red)
    minus = torch.lerp(from_red, from_blue, is_green).lerp_(from_green, is_red)
    sector = is_green.mul_(-2).add_(4).mul_(1 - is_red)  # 0 for red, 2 for green, 4 for blue
    sixths = plus.double().sub_(minus.double()).add_(sector.double()).float()
    turns = sixths.double().div_(6).add_(1).frac_().float()
    return _floor_of_255(turns)


def _floor_of_255(fractions: Tensor) -> Tensor:
    return fractions.double().mul_(_FULL).floor_().to(fractions.dtype)


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor, out: Tensor) -> Tensor:
    """Bytes of hue, saturation and value to RGB. Multiples of 1/255 and 1/255² are counted in whole numbers, all of
    which are below 2²⁴, so that float32 holds them exactly until the division."""
    middle = hue.new_tensor([765.0, 510.0, 1020.0]).view(1, 3, 1, 1)  # of 6 · 255, where channels are full or empty
    slope = hue.new_tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1)
    offset = hue.new_tensor([510.0, -255.0, -255.0]).view(1, 3, 1, 1)
    missing = hue.mul_(6).unsqueeze(1).sub(middle).abs_().mul_(slope).add_(offset).clamp_(0, _FULL)
    missing.mul_(saturation.mul_(value).unsqueeze(1))
    full = (value * 65025).add_(32512).unsqueeze(1)  # half of 255², rounded down, to round the quotient
    return torch.sub(full, missing, out=out).div_(65025).floor_()
