"""Reading one image file as RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from contralex.data.base import Unreadable


def read(path: Path) -> Image.Image:
    """The image, decoded; :class:`Unreadable` where PIL cannot (a truncated file shows only here)."""
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except Exception as error:  # PIL's decoders raise many kinds: OSError, SyntaxError, ValueError, struct.error
        raise Unreadable(str(path), _reason(error)) from error


def header_fault(path: Path) -> str | None:
    """Why the file is no image, as far as its header tells; cheap, because no pixel is decoded."""
    try:
        if path.stat().st_size == 0:
            return "the file is empty"
        with Image.open(path):
            return None
    except Exception as error:  # as in read
        return _reason(error)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB. Pillow would clip 16-bit grey to white; here its upper byte is kept."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    text = str(error).rstrip(".")
    return "it is no image that PIL can read" if not text or text.startswith("cannot identify") else text
