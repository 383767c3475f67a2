"""Where the slots of a method's look-ups stand in a recipe."""

from __future__ import annotations

from contralex.lookup.names import MAIN


def slot_path(question: str, slot: str) -> str:
    """``method.loss``, or ``method.look_ups.dense.loss`` of a further look-up."""
    return f"method.{slot}" if question == MAIN else f"method.look_ups.{question}.{slot}"
