"""The table of the kinds that are installed: the registry fills it, and specs read it.

It stands by itself so that a spec need not know how plugins are found, nor the registry what a slot does with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Kinds(Protocol):
    """What a slot asks when a block is validated."""

    def kinds(self, slot: str) -> list[str]:
        """The names of the kinds of a slot."""
        ...

    def find(self, slot: str, kind: str) -> type[Any] | None:
        """The spec class of a kind, or None where it is not installed."""
        ...

    def hint(self, slot: str, kind: str) -> str:
        """A sentence for a kind that is not installed, with the way to get it."""
        ...


_source: list[Callable[[], Kinds]] = []


def fill(source: Callable[[], Kinds]) -> None:
    """``source`` finds the plugins when a kind is first asked for."""
    _source[:] = [source]


def installed() -> Kinds:
    """The kinds of this environment."""
    return _source[0]()
