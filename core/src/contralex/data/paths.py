"""Many paths in little memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import overload

from contralex.data.base import compact


class Paths(Sequence[Path]):
    """Paths of files below a folder, in the bytes of their names and 8 more each, where a ``Path`` takes hundreds.

    Processes that load data share them: a list of objects would be copied into each, page by page, as it is read.
    """

    def __init__(self, root: Path, paths: Iterable[Path]) -> None:
        self._root = root
        names = [os.fsencode(path.relative_to(root)) for path in paths]
        self._names = b"".join(names)
        self._ends = compact(accumulate(map(len, names), initial=0))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def nbytes(self) -> int:
        return len(self._names) + 8 * len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...

    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = range(len(self))[index]  # counts from the end, and IndexError, as a list does
        return self._root / os.fsdecode(self._names[self._ends[place] : self._ends[place + 1]])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Path.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]
