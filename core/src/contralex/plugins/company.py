"""What views have beside their pixels, as ``contralex explain`` says and draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SIDE = 7  # cells of a drawing


@dataclass(frozen=True)
class ViewCompany:
    """A mask, boxes or blocks of some views, for people. ``lines``: a phrase each, what it is and how it is drawn.

    ``drawing``: an example, rows of cells: ``#`` is hidden, ``.`` is seen, ``o`` is predicted, a space is neither;
    ``a`` and ``b`` are two crops of an image, and ``x`` what both show.
    """

    name: str
    views: Sequence[int]
    lines: Sequence[str]
    drawing: Sequence[str] = ()


BLOCKS = (".......", "..###..", "..###..", "..####.", "...###.", "...###.", ".......")
"""A mask of two rectangles."""


def draw_scattered(fraction: float) -> tuple[str, ...]:
    """The drawing of a mask of single patches: about so much of it is hidden."""
    cells = _SIDE * _SIDE
    hidden = [19 * at % cells < fraction * cells for at in range(cells)]
    return tuple("".join(".#"[cell] for cell in hidden[at : at + _SIDE]) for at in range(0, cells, _SIDE))
