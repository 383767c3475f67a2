"""What a check may say beside nothing, which means that it holds."""

from __future__ import annotations

from contralex.errors import ContralexError


class Failed(Exception):
    """The check does not hold; the message says what was found and what it should be."""


class NotApplicable(Exception):
    """The check asks nothing of this subject; the message says why."""


def as_reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    said_for_people = isinstance(error, Failed | ContralexError)
    return text if said_for_people else f"it raised {type(error).__name__}: {text}"
