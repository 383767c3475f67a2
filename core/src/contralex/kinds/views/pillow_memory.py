"""The pixels of an image of Pillow where they lie, without the copies that its ``tobytes`` makes.

Pillow lends its memory by Arrow's C data interface, as capsules of the two structures that are defined there. Source:
https://arrow.apache.org/docs/format/CDataInterface.html and PyCapsuleInterface.html.
"""

from __future__ import annotations

import ctypes

import torch
from PIL import Image
from torch import Tensor

from contralex.kinds.views.parameters import Box


class _ArrowArray(ctypes.Structure):
    """``struct ArrowArray``. ``children`` are pointers to more of it."""

    _fields_ = [
        ("length", ctypes.c_int64),
        ("null_count", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("buffers", ctypes.POINTER(ctypes.c_void_p)),
        ("children", ctypes.POINTER(ctypes.c_void_p)),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    ]


_read_capsule = ctypes.pythonapi.PyCapsule_GetPointer
_read_capsule.restype, _read_capsule.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def cut_out(image: Image.Image, box: Box) -> Image.Image:
    return image.crop((box.left, box.top, box.left + box.width, box.top + box.height))


def copy_pixels(image: Image.Image, box: Box) -> Tensor:
    """(1, 4, H, W) uint8, channels last: a part of an image in RGB, with the fourth byte that Pillow has beside the
    three of a pixel."""
    part = _copy_lent(image, box) if image.mode == "RGB" else None
    if part is None:
        levels = torch.frombuffer(bytearray(cut_out(image, box).tobytes("raw", "RGBX")), dtype=torch.uint8)
        part = levels.view(box.height, box.width, 4)
    return part.unsqueeze(0).permute(0, 3, 1, 2)


def _copy_lent(image: Image.Image, box: Box) -> Tensor | None:
    """(H, W, 4); None where Pillow does not lend its memory: of images of more than 16 MB, which lie in several
    blocks."""
    try:
        _, lent = image.__arrow_c_array__()
    except ValueError:
        return None
    table = _ArrowArray.from_address(_read_capsule(lent, b"arrow_array"))
    if table.n_children != 1 or table.length != image.width * image.height:
        return None
    levels = _ArrowArray.from_address(table.children[0])
    if levels.length != 4 * table.length or levels.offset or table.offset:
        return None
    memory = (ctypes.c_uint8 * levels.length).from_address(levels.buffers[1])
    pixels = torch.frombuffer(memory, dtype=torch.uint8).view(image.height, image.width, 4)
    # `lent` owns the memory until this function ends.
    return pixels[box.top : box.top + box.height, box.left : box.left + box.width].clone(
        memory_format=torch.contiguous_format
    )
