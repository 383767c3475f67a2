"""Writing a safetensors file, whose bytes are hashed as they are written, so that nobody reads them once more."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from contralex.errors import ContralexError

# Larger types lie first in the file, so that every tensor is aligned: those at the end of this list.
TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
}
_ORDER = list(TYPES)


def save_file(tensors: Mapping[str, Tensor], path: Path) -> str:
    """Write tensors to a file, and wait until they are on the disk. Returns the SHA-256 of the file.

    One tensor at a time is copied, where it is on another device or not contiguous. Raises OSError.
    """
    strange = next((name for name, tensor in tensors.items() if tensor.dtype not in TYPES), None)
    if strange is not None:
        raise ContralexError(f"{strange} is of type {tensors[strange].dtype}, which no safetensors file holds.")
    names = sorted(tensors, key=lambda name: (-_ORDER.index(tensors[name].dtype), name))
    head = _header(tensors, names)
    digest = hashlib.sha256(head)
    with path.open("wb") as file, ThreadPoolExecutor(1) as pool:  # which hashes while the system writes
        file.write(head)
        hashing: Future[None] | None = None
        for name in names:
            data = _bytes(tensors[name])
            if hashing is not None:
                hashing.result()  # two tensors are held at most
            hashing = pool.submit(digest.update, data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _header(tensors: Mapping[str, Tensor], names: list[str]) -> bytes:
    entries, end = {}, 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + math.prod(tensor.shape) * tensor.element_size()
        kind = TYPES[tensor.dtype]
        entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().resolve_conj().contiguous().reshape(-1)
    data: memoryview = flat.view(torch.uint8).numpy().data
    return data
