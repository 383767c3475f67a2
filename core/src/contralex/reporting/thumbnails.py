"""Small pictures as text: what a page without other files can hold."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from PIL import Image, ImageOps, features
from torch import Tensor
from torch.nn import functional as F

from contralex.reporting.limits import THUMBNAIL

_QUALITY = 70
_SPRITE_QUALITY = 55
_GAP = 2  # pixels between the pieces of a mosaic


def to_image(picture: Tensor) -> Image.Image:
    """An RGB image of (C, H, W) in [0, 1], with one or three channels; of several (P, C, H, W) a mosaic, row after
    row."""
    if picture.dim() == 4:
        picture = _mosaic(picture)
    levels = picture.detach().float().clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(levels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())


def _mosaic(pieces: Tensor) -> Tensor:
    columns = math.ceil(math.sqrt(len(pieces)))
    rows = -(-len(pieces) // columns)
    padded = F.pad(pieces, (0, _GAP, 0, _GAP), value=1.0)
    height, width = padded.shape[-2:]
    sheet = padded.new_ones(padded.shape[1], rows * height, columns * width)
    for number, piece in enumerate(padded):
        row, column = divmod(number, columns)
        sheet[:, row * height : (row + 1) * height, column * width : (column + 1) * width] = piece
    return sheet[:, :-_GAP, :-_GAP]


def shrink(image: Image.Image, side: int = THUMBNAIL) -> Image.Image:
    """The image, its longer side at most ``side`` pixels."""
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    return image.resize(
        (max(round(image.width * scale), 1), max(round(image.height * scale), 1)),
        Image.Resampling.BICUBIC,
        reducing_gap=3.0,
    )


def data_uri(image: Image.Image, side: int = THUMBNAIL, quality: int = _QUALITY) -> str:
    """The image as ``data:image/webp;base64,...``; as JPEG where this Pillow has no WebP."""
    kind = "webp" if features.check("webp") else "jpeg"
    file = io.BytesIO()
    shrink(image, side).save(file, kind, quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass(frozen=True)
class Sprite:
    """Square thumbnails of many images in one picture, row after row."""

    uri: str
    side: int
    columns: int


def make_sprite(images: Iterable[Image.Image], count: int, side: int) -> Sprite:
    """The middle square of each of ``count`` images, with ``side`` pixels."""
    columns = max(math.ceil(math.sqrt(count)), 1)
    sheet = Image.new("RGB", (columns * side, max(-(-count // columns), 1) * side), "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        sheet.paste(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC), (column * side, row * side))
    return Sprite(data_uri(sheet, side=max(sheet.size), quality=_SPRITE_QUALITY), side, columns)


_HEAT = ((0.0, 0.0, 0.08), (0.30, 0.07, 0.48), (0.72, 0.21, 0.47), (0.98, 0.53, 0.38), (0.99, 0.96, 0.75))


def heat_map(values: Tensor) -> Tensor:
    """(3, H, W) colours, dark to bright, of values (H, W) from their smallest to their largest."""
    low, high = values.min(), values.max()
    place = (values - low) / (high - low).clamp_min(1e-12) * (len(_HEAT) - 1)
    below = place.floor().clamp(max=len(_HEAT) - 2).long()
    colours = torch.tensor(_HEAT)
    part = (place - below).unsqueeze(-1)
    return (colours[below] * (1 - part) + colours[below + 1] * part).permute(2, 0, 1)


def enlarge(picture: Tensor, factor: int) -> Tensor:
    """(C, H, W) with ``factor`` × ``factor`` pixels for each."""
    return picture.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
