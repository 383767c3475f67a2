"""How much memory and disk this machine has to spare, asked before something large is made; and what is done with
memory that was freed."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from pathlib import Path

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available() -> int | None:
    """Bytes of main memory that this process may still take: what is free, or left of a container's limit, of which
    the processes of a run on this machine have equal shares. None where the system does not say."""
    found = [_free(), *(_left(Path(limit), Path(used)) for limit, used in _CGROUPS)]
    known = [amount for amount in found if amount is not None]
    return min(known) // _neighbours() if known else None


def available_on_disk() -> int:
    """Bytes that this process may take in the folder of temporary files."""
    return shutil.disk_usage(tempfile.gettempdir()).free // _neighbours()


def peak() -> int | None:
    """Bytes of main memory that this process and the largest of its children have had at most. None where the system
    does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def keep_freed() -> bool:
    """Have the C library keep the memory that this process frees, and take it for what is allocated next. Returns
    whether it does.

    glibc gives large blocks back to the system, so that each step of training pays for the same pages anew: a tenth of
    its time on two idle cores. Where the environment says how it is to be (``MALLOC_TRIM_THRESHOLD_``,
    ``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``), that is obeyed.
    """
    library = _glibc()
    if library is None or any(name in os.environ for name in _ALLOCATOR):
        return False
    is_kept = any(library.mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST_BLOCKS)
    return is_kept and bool(library.mallopt(_TRIM_THRESHOLD, _NEVER))


def give_back() -> None:
    """Give what is free back to the system, after :func:`keep_freed`."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


_ALLOCATOR = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _NEVER = -1, -3, -1  # as in malloc.h
_LARGEST_BLOCKS = (1 << 30, 1 << 25)  # before version 2.35 of glibc the second one is the most


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None


def in_words(amount: float) -> str:
    """Bytes as people say them: ``0.61 GiB``."""
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:,.2f} GiB" if amount < 10 else f"{amount:,.0f} GiB"


def _neighbours() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):  # not Linux
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has none of these
        return None


def _left(limit: Path, used: Path) -> int | None:
    try:
        return max(int(limit.read_text()) - int(used.read_text()), 0)
    except (OSError, ValueError):  # there is no such group, or it has no limit ("max")
        return None
