"""Photographs that are decoded at a fraction of their size, where views need no more of their pixels.

A JPEG decoder can leave out the fine half of each block of 8 x 8 pixels, and so give an image of a half, a quarter or
an eighth of the sides in a part of the time. It is nearly what the full image gives when it is reduced by averaging.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from contralex.data import images
from contralex.data.base import Unreadable

DIVISORS = (8, 4, 2)  # of the sides, that a JPEG decoder knows

_Turn = Image.Transpose
_SWAPS = {_Turn.TRANSPOSE, _Turn.ROTATE_270, _Turn.TRANSVERSE, _Turn.ROTATE_90}  # width and height
# What then is left, or on top, was stored last of its row or column.
_MIRRORS_X = {_Turn.FLIP_LEFT_RIGHT, _Turn.ROTATE_180, _Turn.ROTATE_270, _Turn.TRANSVERSE}
_MIRRORS_Y = {_Turn.FLIP_TOP_BOTTOM, _Turn.ROTATE_180, _Turn.ROTATE_90, _Turn.TRANSVERSE}


class _OfSize:
    """``size``: width and height of the full image, upright."""

    size: tuple[int, int]

    @property
    def width(self) -> int:
        return self.size[0]

    @property
    def height(self) -> int:
        return self.size[1]


class Photograph(_OfSize):
    """A JPEG file whose header was read, and whose pixels were not. ``size``: width and height, upright."""

    def __init__(self, image: JpegImageFile, path: Path | str, max_pixels: int) -> None:
        self._image, self._path, self._max_pixels = image, path, max_pixels
        self._turn = images.find_turn(image)
        self.size = self._upright(image.size)

    def decode(self, divisor: int = 1) -> Image.Image | ScaledImage:
        """Its pixels, once: as :func:`contralex.data.images.read` gives them, or with sides divided by one of
        ``DIVISORS``. Raises :class:`Unreadable`."""
        with self._image as image:
            try:
                width, height = image.size
                image.draft(None, (width // divisor, height // divisor))
                is_scaled = image.size != (width, height)
                decoded = images.to_own_rgb(image)
            except Exception as error:  # as in images.read
                raise Unreadable(str(self._path), images.reason_of(error, self._max_pixels)) from error
        if not is_scaled:
            return decoded
        x, y = self._upright((-width % divisor, -height % divisor))
        return ScaledImage(decoded, self.size, divisor, x * (self._turn in _MIRRORS_X), y * (self._turn in _MIRRORS_Y))

    def _upright(self, stored: tuple[int, int]) -> tuple[int, int]:
        return stored[::-1] if self._turn in _SWAPS else stored


@dataclass(frozen=True)
class ScaledImage(_OfSize):
    """An ``image`` whose sides are those of ``size``, (width, height), divided by ``divisor`` and rounded up.

    ``left``, ``top``: how many pixels of the full image it reaches beyond it there, as one does that was stored upside
    down; the others do so on the right and at the bottom.
    """

    image: Image.Image
    size: tuple[int, int]
    divisor: int
    left: int = 0
    top: int = 0


def open_image(path: Path | str, max_pixels: int) -> Photograph | Image.Image:
    """What :func:`contralex.data.images.read` gives, but a JPEG undecoded. Raises :class:`Unreadable`."""
    try:
        images.allow(max_pixels)
        image = Image.open(path)
        if isinstance(image, JpegImageFile):
            images.check_size(image, max_pixels)
            return Photograph(image, path, max_pixels)
        image.close()
    except Exception as error:  # as in images.read
        raise Unreadable(str(path), images.reason_of(error, max_pixels)) from error
    return images.read(path, max_pixels)
