"""Features in a file, written in blocks and under another name first, so that whoever reads it sees all or nothing.

``.safetensors``: the tensors ``features`` and ``labels``; ``paths`` and ``classes`` are JSON in its metadata. ``.npz``:
arrays of these names. ``.parquet``: a row for each image, with ``path``, ``label``, ``class`` and ``features``.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from contralex.errors import ContralexError, remedy
from contralex.files import replacing

_ROWS = 8192  # written at a time
_MAP = {b"contralex": b"map of a report"}
_HEADER = 100_000_000  # bytes of a safetensors file's header, of which its readers take no more


def check(path: Path) -> None:
    """Refuses, before anything is computed, a file that could not be written."""
    if path.suffix.lower() not in _WRITERS:
        raise ContralexError(f"{path}: the name must end in .safetensors, .npz or .parquet")
    if path.suffix.lower() == ".parquet":
        _pyarrow()
    if not path.parent.is_dir():
        raise ContralexError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise ContralexError(f"{path} is a folder; give the name of a file")


def write(path: Path, features: Tensor, paths: Sequence[str], labels: Tensor | None, classes: Sequence[str]) -> None:
    check(path)
    with replacing(path) as draft:
        _WRITERS[path.suffix.lower()](draft, features, paths, labels, classes)


def _blocks(values: Tensor) -> Iterator[Any]:
    for start in range(0, len(values), _ROWS):
        yield values[start : start + _ROWS].contiguous().numpy()


def _safetensors(
    draft: Path, features: Tensor, paths: Sequence[str], labels: Tensor | None, classes: Sequence[str]
) -> None:
    tensors = {"features": ("F32", features), **({"labels": ("I64", labels)} if labels is not None else {})}
    metadata = {"paths": json.dumps(list(paths)), "classes": json.dumps(list(classes))}
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, (kind, tensor) in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER:
        raise ContralexError(
            f"the paths of {len(paths):,} images are more than a safetensors file holds; write .npz or .parquet"
        )
    with draft.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in tensors.values():
            for block in _blocks(tensor):
                file.write(block.astype(block.dtype.newbyteorder("<"), copy=False).data)


def _npz(draft: Path, features: Tensor, paths: Sequence[str], labels: Tensor | None, classes: Sequence[str]) -> None:
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
        for name, values in (("features", features), ("labels", labels)):
            if values is not None:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    _npy(file, values)
        for name, texts in (("paths", paths), ("classes", classes)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.array(texts, dtype=np.str_), allow_pickle=False)


def _npy(file: IO[bytes], values: Tensor) -> None:
    head = {"descr": np.lib.format.dtype_to_descr(values[:0].numpy().dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(file, {**head, "shape": tuple(values.shape)})
    for block in _blocks(values):
        file.write(block.data)


def _parquet(
    draft: Path, features: Tensor, paths: Sequence[str], labels: Tensor | None, classes: Sequence[str]
) -> None:
    arrow, parquet = _pyarrow()
    width = features.shape[1]
    columns = [("path", arrow.string())]
    if labels is not None:
        columns += [("label", arrow.int64()), ("class", arrow.string())]
    schema = arrow.schema([*columns, ("features", arrow.list_(arrow.float32(), width))])
    with parquet.ParquetWriter(draft, schema) as writer:
        for start in range(0, len(paths), _ROWS):
            rows = slice(start, start + _ROWS)
            values: dict[str, Any] = {"path": arrow.array(list(paths[rows]), arrow.string())}
            if labels is not None:
                numbers = [number if number >= 0 else None for number in labels[rows].tolist()]
                names = [classes[number] if number is not None and classes else None for number in numbers]
                values |= {"label": arrow.array(numbers, arrow.int64()), "class": arrow.array(names, arrow.string())}
            flat = arrow.array(features[rows].contiguous().numpy().reshape(-1))
            values["features"] = arrow.FixedSizeListArray.from_arrays(flat, width)
            writer.write_table(arrow.table(values, schema=schema))


def has_pyarrow() -> bool:
    return find_spec("pyarrow") is not None


def write_map(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """The map of a report into a ``.parquet`` file, which says that it is one: columns of one length, whose nested
    values are structs and lists."""
    check(path)
    arrow, parquet = _pyarrow()
    with replacing(path) as draft:
        parquet.write_table(arrow.table(dict(columns), metadata=_MAP), draft)


def is_map(path: Path) -> bool:
    """Whether :func:`write_map` wrote this file."""
    _, parquet = _pyarrow()
    try:
        found: Mapping[bytes, bytes] = parquet.read_schema(path).metadata or {}
    except (OSError, ValueError):
        return False
    return _MAP.items() <= found.items()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ContralexError(
            "a .parquet file needs pyarrow, which is not installed:" + remedy("pip", "install", "contralex[parquet]")
        ) from None
    return pyarrow, pyarrow.parquet


_WRITERS: dict[str, Callable[[Path, Tensor, Sequence[str], Tensor | None, Sequence[str]], None]] = {
    ".safetensors": _safetensors,
    ".npz": _npz,
    ".parquet": _parquet,
}
