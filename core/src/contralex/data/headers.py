"""Files that are no images, or lack what belongs to them: found before a run starts, as far as that is quick.

Opening a file takes a quarter of a millisecond on a local disk and more on a network's: minutes for a million, at each
start. So of many files a part is looked at; one of the others that is broken is replaced where it is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contralex.data.base import printable
from contralex.lookup import distributed

CHECKED = 20_000  # files; of more, at most so many are looked at
_THREADS = 16  # mostly waiting for the disk
_TOGETHER = 64  # files that a thread takes at a time; to hand each on alone costs as much as to look at it


def checked(count: int) -> range:
    """Which of ``count`` files are looked at: all, or every second, third, ... of them."""
    return range(0, count, max(-(-count // CHECKED), 1))


def faults(files: Sequence[Path], fault: Callable[[int], str | None], what: str) -> dict[int, str]:
    """The faults of those that are looked at, by index. The main process looks, and tells the others.

    ``fault`` gives that of the file with this index, if it has one; ``what``: a name of what is looked for.
    """
    return distributed.make_on_main(
        f"{what}: {len(files)} files from {printable(files[0])} to {printable(files[-1])}",
        lambda: _look(checked(len(files)), fault),
    )


def note(*counts: int) -> list[str]:
    """For the line at the start of a run, where not all files of these splits are looked at."""
    if max(counts, default=0) <= CHECKED:
        return []
    looked = sum(len(checked(count)) for count in counts)
    return [f"{looked:,} of these files were looked at, evenly spread; others that are broken are found when read"]


def _look(which: range, fault: Callable[[int], str | None]) -> dict[int, str]:
    def look_at(some: range) -> list[tuple[int, str | None]]:
        return [(index, fault(index)) for index in some]

    parts = [which[start : start + _TOGETHER] for start in range(0, len(which), _TOGETHER)]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = (pair for part in pool.map(look_at, parts) for pair in part)
        return {index: reason for index, reason in found if reason is not None}
