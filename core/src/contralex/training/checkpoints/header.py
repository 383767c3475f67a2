"""The headers of safetensors files, read and checked without torch, before anything is read by them.

8 bytes with the length of the header, the header in JSON, and then the tensors' bytes without a gap.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contralex.errors import ContralexError
from contralex.files import opened, parse_json

_LIMIT = 16 * 2**20  # bytes of a header: more than a hundred thousand tensors
_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 8),
}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


def read(path: Path) -> list[Stored]:
    """In the order in which they lie in the file. Raises :class:`ContralexError` that names the file."""
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            room = min(max(size - 8, 0), _LIMIT)
            if size < 8 or length > room:
                raise ValueError(f"its header would have {length} bytes, and {room} are possible")
            header = parse_json(file.read(length))
        return _checked(header, size - 8 - length)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ContralexError(f"{path} is damaged: {reason!s:.200}; take another checkpoint.") from None


def _checked(header: Any, size: int) -> list[Stored]:
    if not isinstance(header, dict):
        raise ValueError("its header is no block of tensors")
    found = (_place(name, entry) for name, entry in header.items() if name != "__metadata__")
    places = sorted(found, key=lambda place: place[:2])
    end = 0
    for start, stop, tensor in places:
        if start != end or stop - start != tensor.bytes:
            raise ValueError(f"the bytes of {tensor.name:.80} are not where its header says")
        end = stop
    if end != size:
        raise ValueError(f"it has {size} bytes of tensors, and its header says {end}")
    return [tensor for _, _, tensor in places]


def _place(name: str, entry: Any) -> tuple[int, int, Stored]:
    if not name.isprintable() or not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"its header does not say what {name!r:.80} is")
    shape, dtype, offsets = entry["shape"], entry["dtype"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise ValueError(f"{name:.80} is of a type that is not known here")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2 or len(shape) > 64:
        raise ValueError(f"the shape or the place of {name:.80} is none")
    return offsets[0], offsets[1], Stored(name, tuple(shape), dtype, math.prod(shape) * _BYTES[dtype])


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)
