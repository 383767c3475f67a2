"""One image as RGB: upright, on white, with the grey levels of its file, whatever its mode."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from contralex.compat import detached_image
from contralex.data import jpeg
from contralex.data.base import Unreadable
from contralex.errors import remedy

# What PIL warns of (odd metadata, many pixels, a palette's transparency) is either handled here or harmless. Set
# once, because a filter for one call would be shared by the threads that read headers.
warnings.filterwarnings("ignore", module=r"PIL\.")

with suppress(ImportError):  # reads .heic and .heif, where it is installed
    import pillow_heif  # type: ignore[import-not-found, import-untyped, unused-ignore]

    pillow_heif.register_heif_opener()

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF
_WHITE_IS_ZERO = 0
_16_BIT_FORMATS = ("PNG", "PPM")  # whose values of mode I run from 0 to 65535, whatever maximum the file states


class _TooManyPixels(Exception):
    pass


def read(path: Path | str, max_pixels: int) -> Image.Image:
    """The image, decoded; :class:`Unreadable` where PIL cannot (a truncated file shows only here)."""
    try:
        return decode(path, max_pixels)
    except Exception as error:  # PIL's decoders raise many kinds: OSError, SyntaxError, ValueError, struct.error
        raise Unreadable(str(path), reason_of(error, max_pixels)) from error


def decode(file: Path | str | IO[bytes], max_pixels: int) -> Image.Image:
    """The image in a file, decoded. Raises whatever PIL does, of which :func:`reason_of` makes words."""
    return jpeg.read(file, max_pixels) or _decode_any(file, max_pixels)


def _decode_any(file: Path | str | IO[bytes], max_pixels: int) -> Image.Image:
    allow(max_pixels)
    with Image.open(file) as image:
        check_size(image, max_pixels)
        return to_own_rgb(image)


def header_fault(path: Path, max_pixels: int) -> str | None:
    """Why the file is no image, as far as its header tells; cheap, because no pixel is decoded."""
    try:
        if path.stat().st_size == 0:
            return "the file is empty"
        allow(max_pixels)
        with _open_as_named(path) as image:
            check_size(image, max_pixels)
        return None
    except Exception as error:  # as in read
        return reason_of(error, max_pixels)


def _open_as_named(path: Path) -> Image.Image:
    """PIL tries one format after the other. The one that the file's name says comes first here."""
    named = Image.registered_extensions().get(path.suffix.lower())
    with suppress(UnidentifiedImageError):
        return Image.open(path, formats=None if named is None else [named])
    return Image.open(path)


def allow(max_pixels: int) -> None:
    """Raise PIL's own limit, of which it refuses the double, where it is lower. It is one for the whole process."""
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)


def check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise _TooManyPixels(image.width * image.height)


def to_rgb(image: Image.Image) -> Image.Image:
    """A new RGB image, turned as its EXIF orientation says, what is transparent white."""
    return _convert(image, own=False)


def to_own_rgb(image: Image.Image) -> Image.Image:
    """As :func:`to_rgb`, of an image that nobody else has: its pixels need not be copied, which for a photograph takes
    a fifth of the time of decoding it."""
    return _convert(image, own=True)


def _convert(image: Image.Image, own: bool) -> Image.Image:
    copy_rgb = detached_image if own else Image.Image.copy
    image.load()  # PIL turns a TIFF itself, and then forgets the orientation; it finds a PNG's behind the pixels
    if image.mode == "RGB" and not image.info:
        return copy_rgb(image)
    turn = find_turn(image)
    if image.mode.startswith("I") or image.mode == "F":
        rgb = _grey(image).convert("RGB")
    elif _is_transparent(image):
        rgb = _on_white(image)
    else:
        rgb = copy_rgb(image) if image.mode == "RGB" else image.convert("RGB")
    rgb = rgb if turn is None else rgb.transpose(turn)
    rgb.info = {}  # with the orientation in it, the image would be turned again
    return rgb


def find_turn(image: Image.Image) -> Image.Transpose | None:
    """What makes an opened image upright, by its EXIF orientation: a JPEG has that in its header, others have it behind
    the pixels."""
    with suppress(Exception):  # damaged metadata raise many kinds, and the pixels are there
        orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
        return _UPRIGHT.get(orientation)
    return None


def _grey(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits; PIL would clip it to white. One scale for all files of a format: the range of the
    file's type, never the values of the image."""
    values: NDArray[Any] = np.asarray(image)
    grey = _unit_interval(values) if image.mode == "F" else _upper_byte(values, image)
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # PIL does not invert it
        grey = 255 - grey
    if isinstance(key := image.info.get("transparency"), int):
        grey = np.where(values == key, 255, grey)
    return Image.fromarray(grey.astype(np.uint8))


def _unit_interval(values: NDArray[Any]) -> NDArray[Any]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise ValueError(
            f"its floating-point values run from {low:g} to {high:g}, and are read from 0 for black to 1 for white; "
            "save it with 8 or 16 bits"
        )
    return values * 255 + 0.5


def _upper_byte(values: NDArray[Any], image: Image.Image) -> NDArray[Any]:
    bits = _bits(image)
    low, high = int(values.min()), int(values.max())
    # No one means 2³² levels of grey: 32 bits hold 16 in most files, and 8 in some, where 16 would make all black.
    if low < 0 or (bits > 16 and high and not 256 <= high < 2**16):
        raise ValueError(
            f"its grey values run from {low} to {high}, and its format does not say which is white; "
            "save it with 8 or 16 bits"
        )
    return values >> (min(bits, 16) - 8)


def _bits(image: Image.Image) -> int:
    """How many bits the grey values of the image's format have, without the sign."""
    if isinstance(image, TiffImageFile):
        stored = int(image.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0])
        return 15 if image.mode == "I" and stored == 16 else stored
    return 32 if image.mode == "I" and image.format not in _16_BIT_FORMATS else 16


def _is_transparent(image: Image.Image) -> bool:
    keyed = image.mode in ("1", "L", "P", "RGB") and "transparency" in image.info
    return keyed or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")


def _on_white(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # of a PNG of 16 bits, of which PIL keeps the upper byte
        image.info["transparency"] = tuple(value >> 8 for value in key)
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def reason_of(error: Exception, max_pixels: int) -> str:
    """Why an image cannot be read, for :class:`Unreadable`."""
    text = str(error).rstrip(".")
    if isinstance(error, _TooManyPixels | Image.DecompressionBombError):
        pixels = int(next(iter(re.findall(r"\d+", text)), max_pixels + 1))  # PIL's text begins with their number
        return f"it has {pixels:,} pixels, and data.max_pixels allows {max_pixels:,}" + remedy(
            "--set", f"data.max_pixels={pixels}"
        )
    return "it is no image that PIL can read" if not text or text.startswith("cannot identify") else text
