"""HTML and SVG that are safe by construction: whatever is not markup already is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import Any


class Markup(str):
    """Text that is markup already, and stays as it is."""

    __slots__ = ()


EMPTY = Markup("")
_VOID = frozenset({"img", "br", "input", "meta", "link", "hr"})  # elements of HTML that have no end tag


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """An element. ``content`` and the values of ``attributes`` are escaped where they are no :class:`Markup`.

    An attribute of Python's keywords ends in ``_`` (``class_``), other ``_`` are hyphens; None and False leave an
    attribute out, and True writes its name alone.
    """
    given = {key: value for key, value in attributes.items() if value is not None and value is not False}
    words = [name, *(_attribute(key, value) for key, value in given.items())]
    start = f"<{' '.join(words)}>"
    return Markup(start if name in _VOID else f"{start}{join(content)}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """The parts one after the other, each escaped where it is no markup. None is nothing."""
    return Markup(
        "".join(part if isinstance(part, Markup) else escape(str(part)) for part in parts if part is not None)
    )


def json_script(identity: str, value: Any) -> Markup:
    """Data for the page's script. No text in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(f'<script type="application/json" id="{escape(identity)}">{text}</script>')


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    return name if value is True else f'{name}="{escape(str(value))}"'
