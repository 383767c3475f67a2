"""Digests by which data are known again: of the names and sizes of files, and of values in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

Part = str | bytes | int | None


def digest(parts: Iterable[Part]) -> str:
    """The SHA-256 of parts in their order. Each goes in with its kind and length, so no two lists have the same."""
    made = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode("utf-8", "surrogatepass")
        made.update(f"{type(part).__name__} {len(data)}:".encode())
        made.update(data)
    return made.hexdigest()


def sizes(paths: Iterable[Path]) -> Iterable[Part]:
    """The size of each file in bytes; -1 for one that is gone."""
    for path in paths:
        try:
            yield path.stat().st_size
        except OSError:
            yield -1


def states(paths: Iterable[Path]) -> Iterable[Part]:
    """What changes where a file is written: its size and times, the one that programs may set and the one that they
    may not."""
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            yield -1
            continue
        yield f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
