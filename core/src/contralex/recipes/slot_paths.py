"""Where the slots of a method's look-ups stand in a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from contralex.errors import ContralexError
from contralex.lookup.names import MAIN

_OWN_SLOT = re.compile(r"\bmethod\.(negatives|targets|loss)\b")


def slot_path(question: str, slot: str) -> str:
    """``method.loss``, or ``method.look_ups.dense.loss`` of a further look-up."""
    return f"method.{slot}" if question == MAIN else f"method.look_ups.{question}.{slot}"


@contextmanager
def named_in_look_up(question: str) -> Iterator[None]:
    """In the sentence of a mistake that a part makes, put its look-up's slots for those of the main one, by which a
    part names itself."""
    try:
        yield
    except ContralexError as error:
        error.args = (_OWN_SLOT.sub(lambda found: slot_path(question, found[1]), str(error)),)
        raise
