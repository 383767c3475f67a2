"""The items that could not be read: how many, and the names of the first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import overload

NAMED = 100  # whose names are kept; of the others a hash, so that each counts once


class Skipped(Sequence[str]):
    """The names of the first items, with a reason each, and the number of all."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self._seen: set[int] = set()

    @property
    def total(self) -> int:
        return len(self._seen)

    def add(self, name: str, reason: str) -> bool:
        """Count an item. Returns whether it is new."""
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
        if key in self._seen:
            return False
        self._seen.add(key)
        if len(self.reasons) < NAMED:
            self.reasons[name] = reason
        return True

    def merge(self, others: Iterable[Skipped]) -> None:
        """Count what others have, once each."""
        for other in others:
            for name in other:
                self.add(name, other.reasons[name])
            self._seen |= other._seen

    def __len__(self) -> int:
        return len(self.reasons)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        return list(self.reasons)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self.reasons) == list(other)

    __hash__ = None  # type: ignore[assignment]
