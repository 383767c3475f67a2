"""How large a spec may be, so that a file from anywhere costs little time and memory to refuse."""

from __future__ import annotations

from typing import Any

from contralex.errors import ContralexError

DEPTH = 64  # blocks within blocks
DIGITS = 40  # of a whole number
TEXT = 2**22  # bytes of a file
NODES = 50_000  # keys and values


def check_data(data: Any, where: str) -> None:
    """What YAML's reader refuses, for data that came another way: too deep, or with numbers that are too long."""
    below: list[tuple[Any, int]] = [(data, 0)]
    seen = 0
    while below:
        value, depth = below.pop()
        seen += 1
        if seen > NODES:
            raise ContralexError(too_many(where))
        if isinstance(value, dict | list | tuple):
            if depth >= DEPTH:
                raise ContralexError(too_deep(where))
            below += [(item, depth + 1) for item in value]  # of a dict, its keys
            below += [(item, depth + 1) for item in (value.values() if isinstance(value, dict) else ())]
        elif isinstance(value, int) and abs(value) >= 10**DIGITS:
            raise ContralexError(f"{where}: a whole number has more than {DIGITS} digits; write a smaller one")
        elif isinstance(value, str) and not value.isprintable() and _is_half(value):
            raise ContralexError(f"{where}: {value!r:.60} is no text that UTF-8 can hold; write another one")


def _is_half(text: str) -> bool:
    return any(0xD800 <= ord(character) < 0xE000 for character in text)  # of a surrogate pair


def too_deep(where: str) -> str:
    return f"{where}: blocks are nested more than {DEPTH} deep; a recipe needs far fewer, so write it flatter"


def too_many(where: str) -> str:
    return f"{where}: this has more than {NODES} keys and values, too many for a recipe; shorten it"
