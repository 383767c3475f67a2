"""Changes of colour as Pillow makes them, on many images at once and in place.

Pixels are float32 tensors (N, 3, H, W) of whole numbers from 0 to 255: a float holds each product below exactly, and
vectorised float arithmetic is several times faster than Pillow's loops over bytes. Every change ends in whole
numbers again, as Pillow's does. Factors are a list with one number for each image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)  # Pillow's, of ITU-R 601-2: sums of them with bytes are exact
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
    half = pixels.new_tensor(0.5)
    return torch.add(half, red, alpha=LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).floor_()


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
    """Turn the hue by ``factor`` of a full turn."""
    steps = _column([float(hue_steps(factor)) for factor in factors], pixels)
    return turn_hue(pixels, steps if isinstance(steps, float) else steps.view(-1, 1, 1))


def turn_hue(pixels: Tensor, steps: Tensor | float) -> Tensor:
    """Turn the hue by so many of 256 steps, by way of Pillow's HSV, whose three values are bytes. ``steps``: (N, 1, 1),
    or one number for all."""
    red, green, blue = pixels.unbind(1)
    value = torch.maximum(red, green).maximum(blue)
    chroma = torch.minimum(red, green).minimum(blue).neg_().add_(value)
    saturation = _floor_of_255((chroma / value.clamp(min=1)).double())
    hue = _hue(pixels, value, chroma)
    hue.add_(steps).mul_(1 / 256).frac_().mul_(256)  # a byte that overflows begins anew
    return _from_hsv(hue, saturation, value, out=pixels)


def hue_steps(turns: float) -> int:
    """How many of 256 steps the byte of a hue turns."""
    return int(turns * 255) % 256


def _hue(pixels: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """(N, H, W) the hue as a byte.

    It is that of the largest channel (0 for red, 2 for green, 4 for blue, in sixths of a turn), plus the difference of
    the two others, divided by the chroma. Pillow divides the distance of each channel from the largest one: of the
    two others one is the smallest, so its quotient is 1. Results are rounded where, and to what, Pillow rounds them.
    """
    red, green, blue = pixels.unbind(1)
    is_red = torch.eq(red, value, out=torch.empty_like(value))
    is_green = torch.eq(green, value, out=torch.empty_like(value))
    # Masks of 0 and 1 as weights of lerp: exact, and faster than torch.where, which takes bytes.
    apart = (red - green).lerp_(blue - red, is_green).lerp_(green - blue, is_red)
    direction = apart.sign()
    quotient = apart.abs_().neg_().add_(chroma).div_(chroma.clamp_(min=1)).mul_(direction)
    sector = is_green.mul_(-2).add_(4).mul_(is_red.neg_().add_(1))
    sixths = sector.add_(direction).sub_(quotient)
    turns = sixths.double().div_(6).add_(1).frac_().float()
    return _floor_of_255(turns.double())


def _floor_of_255(fractions: Tensor) -> Tensor:
    return fractions.mul_(_FULL).floor_().float()


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor, out: Tensor) -> Tensor:
    """Bytes of hue, saturation and value to RGB. Multiples of 1/255 and 1/255² are counted in whole numbers, all of
    which are below 2²⁴, so that float32 holds them exactly until the division."""
    hue.mul_(6)  # a turn is 1530
    weight = saturation.mul_(value)
    full = value.mul_(65025).add_(32512)  # half of 255², rounded down, to round the quotient
    # A channel is full at one hue and empty at the opposite one: red here by its distance from empty, the others full.
    for channel, middle, sign in ((0, 765, 1), (1, 510, -1), (2, 1020, -1)):
        distance = (hue - middle).abs_().sub_(_FULL).clamp_(0, _FULL)
        start = full - weight * _FULL if sign > 0 else full
        torch.addcmul(start, weight, distance, value=sign, out=out[:, channel])
    return out.div_(65025).floor_()
