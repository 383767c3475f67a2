"""What a checkpoint's folder holds: ``manifest.json`` has the size and the SHA-256 of every file, and is written last.

So a folder whose manifest fits is complete, and has what was saved, whatever befell the disk since.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contralex.files import opened, read_json, to_disk

MODEL, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"
_NEEDED = (MODEL, OPTIMIZER, STATE)


@dataclass(frozen=True)
class File:
    """``problem``: why it is not believed, or nothing."""

    name: str
    size: int
    sha256: str
    problem: str = ""


def write(folder: Path, hashes: Mapping[str, str] | None = None) -> None:
    """For all files that lie in the folder; they are on the disk when the manifest is, and before it.

    ``hashes``: the SHA-256 of files that were hashed when they were written. The others are read.
    """
    known = hashes or {}
    files = {}
    for file in sorted(folder.iterdir()):
        to_disk(file)
        files[file.name] = {"size": file.stat().st_size, "sha256": known.get(file.name) or _sha256(file)}
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "files": files}, indent=1) + "\n", "utf-8")
    to_disk(folder / MANIFEST)
    to_disk(folder)


def files_of(folder: Path, *, hashes: bool | Container[str] = True) -> list[File]:
    """Each file of the manifest with what is wrong with it. ``hashes``: whether files are read, or the names of those
    that are; of the others sizes are compared, which is quick.

    Files that were put beside them later, as a plugin's hook may do, are none of the manifest's.
    """
    try:
        listed = _listed(read_json(folder / MANIFEST, 2**20))
    except (OSError, ValueError) as error:
        return [File(MANIFEST, 0, "", _reason(error))]
    hashed = [name for name in listed if (hashes if isinstance(hashes, bool) else name in hashes)]
    with ThreadPoolExecutor() as pool:  # hashing lets go of Python's lock
        files = list(pool.map(lambda name: _compared(folder / name, listed[name], name in hashed), listed))
    return [*files, *(File(name, 0, "", "the manifest does not have it") for name in _NEEDED if name not in listed)]


def _listed(manifest: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(manifest, dict) or manifest.get("format") != 1 or not isinstance(manifest.get("files"), dict):
        raise ValueError("it is no manifest of format 1")
    for name, entry in manifest["files"].items():
        if os.path.basename(name) != name or "\\" in name or not name.isprintable() or name in ("", ".", ".."):
            raise ValueError(f"it lists {name!r:.80}, which is no file's name")
        is_whole = isinstance(entry, dict) and type(entry.get("size")) is int and isinstance(entry.get("sha256"), str)
        if not is_whole or not 0 <= entry["size"] < 2**63 or len(entry["sha256"]) != 64:
            raise ValueError(f"it lists {name:.80} without its size and SHA-256")
    files: dict[str, dict[str, Any]] = manifest["files"]
    return files


def _compared(path: Path, entry: dict[str, Any], hashes: bool) -> File:
    problem = ""
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry["size"]:
                problem = f"it has {size} bytes where {entry['size']} were saved"
            elif hashes and hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                problem = "its SHA-256 is not that of what was saved"
    except (OSError, ValueError) as error:
        problem = _reason(error)
    return File(path.name, entry["size"], entry["sha256"], problem)


def _sha256(path: Path) -> str:
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: OSError | ValueError) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return text[:1].lower() + text[1:] if text else str(error)[:200]
