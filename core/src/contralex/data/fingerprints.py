"""Digests by which data are known again: of the names and sizes of files, and of values in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from itertools import islice

Part = str | bytes | int | None
_TOGETHER = 1 << 12  # parts that are hashed in one call


def digest(parts: Iterable[Part]) -> str:
    """The SHA-256 of parts in their order. Each goes in with its kind and length, so no two lists have the same."""
    made = hashlib.sha256()
    parts = iter(parts)
    while some := [_framed(part) for part in islice(parts, _TOGETHER)]:
        made.update(b"".join(some))
    return made.hexdigest()


def _framed(part: Part) -> bytes:
    data = part if isinstance(part, bytes) else repr(part).encode("utf-8", "surrogatepass")
    return b"%s %d:%s" % (type(part).__name__.encode(), len(data), data)


def sizes(paths: Iterable[str | os.PathLike[str]]) -> Iterable[Part]:
    """The size of each file in bytes; -1 for one that is gone."""
    for path in paths:
        try:
            yield os.stat(path).st_size
        except OSError:
            yield -1


def states(paths: Iterable[str | os.PathLike[str]]) -> Iterable[Part]:
    """What changes where a file is written: its size and times, the one that programs may set and the one that they
    may not."""
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            yield -1
            continue
        yield f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
