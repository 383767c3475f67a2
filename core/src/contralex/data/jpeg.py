"""Ordinary JPEG files, read with less work than by :func:`PIL.Image.open`.

That parses a header in Python for all that may be asked of it later, and gives its decoder a file block by block. Here
the header is looked at for what the decoder has to know, and the same decoder gets the file in one piece. So the pixels
are those of the installed Pillow, bit by bit.

What is not ordinary is left to :mod:`contralex.data.images`: metadata that may turn the image, several pictures in a
file, the colours of print, and whatever is damaged, which is then refused or admitted as before.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import IO

from PIL import Image

_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")  # other files are not read twice
_START = b"\xff\xd8\xff"
_SCAN = 0xDA
_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended and progressive, with Huffman's code
_QUANTIZATION, _APP2 = 0xDB, 0xE2
_TABLE = 65  # bytes of a table of 8 bits, of which the first is the number
_PROFILE = b"ICC_PROFILE\0"  # of colours, which is not applied; what else is in APP2 may be more pictures
# Segments that say nothing about the pixels, or only to the decoder, and the length from which on Pillow reads them
# without a fault: Huffman's tables, restarts, comments, JFIF, Adobe's, others of applications. EXIF and XMP (APP1) may
# turn the image, and files with damaged segments of Photoshop (APP13) are refused.
_SHORTEST = {0xC4: 2, 0xDD: 2, 0xFE: 2, 0xE0: 16, 0xEE: 14, **dict.fromkeys([*range(0xE3, 0xED), 0xEF], 2)}
_MODES = {1: "L", 3: "RGB"}  # by the number of components


def read(file: Path | str | IO[bytes], max_pixels: int) -> Image.Image | None:
    """The image as :func:`contralex.data.images.decode` gives it; None where that has to be asked."""
    if isinstance(file, BytesIO):
        return _decode(file.getvalue(), max_pixels)
    if not isinstance(file, Path | str) or not str(file).lower().endswith(_SUFFIXES):
        return None
    try:
        with open(file, "rb", buffering=0) as opened:
            data = opened.read()
    except OSError:
        return None
    return _decode(data, max_pixels)


def _decode(data: bytes, max_pixels: int) -> Image.Image | None:
    frame = _find_frame(data)
    if frame is None:
        return None
    mode, width, height = frame
    if not 0 < width * height <= max_pixels:
        return None
    image = Image.new(mode, (width, height), None)
    try:
        image.frombytes(data, "jpeg", mode, "")
    except Exception:  # damaged, or too short: Pillow's other way says whether it is refused, and why
        return None
    return image if mode == "RGB" else image.convert("RGB")


def _find_frame(data: bytes) -> tuple[str, int, int] | None:
    """Mode, width and height, of an ordinary JPEG file alone."""
    if not data.startswith(_START):
        return None
    frame = None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        start, end = at + 4, at + 2 + length
        if end > len(data):
            return None
        if marker == _SCAN:
            return frame
        if marker in _SHORTEST:
            ordinary = length >= _SHORTEST[marker]
        elif marker == _QUANTIZATION:
            ordinary = length % _TABLE == 2 and max(data[start:end:_TABLE], default=0) < 16
        elif marker in _FRAMES:
            ordinary = frame is None
            frame = _read_frame(data[start:end])
        else:
            ordinary = marker == _APP2 and data.startswith(_PROFILE, start) and length >= 16
        if not ordinary:
            return None
        at = end
    return None


def _read_frame(segment: bytes) -> tuple[str, int, int] | None:
    if len(segment) < 6 or segment[0] != 8 or len(segment) != 6 + 3 * segment[5] or segment[5] not in _MODES:
        return None
    return _MODES[segment[5]], segment[3] << 8 | segment[4], segment[1] << 8 | segment[2]
