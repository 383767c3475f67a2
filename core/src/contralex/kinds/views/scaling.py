"""Views of photographs that were decoded at a fraction of their size: which fraction, and where a crop lies then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from contralex.data.photographs import DIVISORS, ScaledImage
from contralex.kinds.views.augment import Augment
from contralex.kinds.views.parameters import Box, ViewParameters


def choose_divisor(augments: Sequence[Augment], parameters: Sequence[ViewParameters]) -> int:
    """The largest by which the sides of an image may be divided so that no crop of these views has fewer pixels than
    its view. Where one has fewer in the full image already, it is 1."""
    room = [
        min(drawn.crop.height, drawn.crop.width) // augment.crop.size if drawn.crop else 1
        for augment, drawn in zip(augments, parameters, strict=True)
    ]
    return next((divisor for divisor in DIVISORS if divisor <= min(room)), 1)


def may_scale(augments: Sequence[Augment], size: tuple[int, int]) -> bool:
    """Whether the crops of these views can be large enough in an image of this width and height."""
    return min(size) >= min(DIVISORS) * max(augment.crop.size for augment in augments)


def scale_crops(
    items: Sequence[Image.Image | ScaledImage], parameters: Sequence[ViewParameters]
) -> tuple[list[Image.Image], list[ViewParameters]]:
    """The pixels that there are, and the parameters with the crops in those pixels."""
    images, scaled = [], []
    for item, drawn in zip(items, parameters, strict=True):
        if isinstance(item, ScaledImage):
            images.append(item.image)
            scaled.append(drawn if drawn.crop is None else replace(drawn, crop=_divide(drawn.crop, item)))
        else:
            images.append(item)
            scaled.append(drawn)
    return images, scaled


def _divide(box: Box, scaled: ScaledImage) -> Box:
    top, height = _divide_side(scaled.top + box.top, box.height, scaled.divisor)
    left, width = _divide_side(scaled.left + box.left, box.width, scaled.divisor)
    return Box(top, left, height, width)


def _divide_side(start: int, length: int, divisor: int) -> tuple[int, int]:
    """The ends rounded to the nearest pixel, upwards from the middle of two: so a side of at least ``divisor`` times
    some pixels has at least these."""
    first, last = ((2 * end + divisor) // (2 * divisor) for end in (start, start + length))
    return first, last - first
