"""Many short texts in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import overload

_TOGETHER = 1 << 16  # texts that are added at a time


class Texts(Sequence[str]):
    """Texts in their bytes and 8 more each, where a ``str`` takes 50 more.

    Processes that load data share them: a list of objects would be copied into each, page by page, as it is read.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])
        self.extend(texts)

    def append(self, text: str) -> None:
        self.extend([text])

    def extend(self, texts: Iterable[str]) -> None:
        # Names of files may hold bytes that are no text.
        self._add(text.encode("utf-8", "surrogatepass") for text in texts)

    def _add(self, texts: Iterator[bytes]) -> None:
        while some := list(islice(texts, _TOGETHER)):
            self._ends.extend(islice(accumulate(map(len, some), initial=len(self._bytes)), 1, None))
            self._bytes += b"".join(some)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def nbytes(self) -> int:
        return len(self._bytes) + 8 * len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        at = range(len(self))[index]  # counts from the end, and IndexError, as a list does
        return self._bytes[self._ends[at] : self._ends[at + 1]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in islice(self._ends, 1, None):
            yield self._bytes[start:end].decode("utf-8", "surrogatepass")
            start = end

    def select(self, indices: Iterable[int]) -> Texts:
        selected, count, ends = Texts(), range(len(self)), self._ends
        with memoryview(self._bytes) as found:
            selected._add(bytes(found[ends[at] : ends[at + 1]]) for at in map(count.__getitem__, indices))
        return selected

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]
