"""A grid of views as one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from contralex.reporting.thumbnails import shrink
from contralex.reporting.view_grid import ViewCell, ViewRows

_SIDE = 144  # pixels of a picture
_GAP = 12
_LETTERS = 24  # of a line below a picture
_LINES = 7
_LINE = 13
_FONT = 11
_INK, _QUIET, _PAPER = "#1f2933", "#52606d", "#ffffff"


def draw(grid: ViewRows) -> Image.Image:
    """A row for each sample, with a heading for each view, and below each view what it went through."""
    font = ImageFont.load_default(_FONT)
    columns = ["as it is", *grid.columns]
    rows = [[ViewCell(row.original, "" if row.original else "no image", [row.name]), *row.cells] for row in grid.rows]
    heights = [_SIDE + _LINE * max(len(_below(cell)) for cell in cells) + _GAP for cells in rows]
    picture = Image.new("RGB", (_GAP + len(columns) * (_SIDE + _GAP), 28 + sum(heights)), _PAPER)
    pen = ImageDraw.Draw(picture)
    for column, name in enumerate(columns):
        pen.text((_left(column), 8), printable(name), fill=_INK, font=font)
    top = 28
    for cells, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(cells):
            _draw_cell(picture, pen, cell, _left(column), top, font)
        top += height
    return picture


def _draw_cell(
    picture: Image.Image,
    pen: ImageDraw.ImageDraw,
    cell: ViewCell,
    left: int,
    top: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    if cell.image is not None:
        small = _fit(cell.image)
        picture.paste(small, (left, top))
    else:
        for number, line in enumerate(textwrap.wrap(printable(cell.text), _LETTERS)[: _SIDE // _LINE]):
            pen.text((left, top + number * _LINE), line, fill=_INK, font=font)
    for number, line in enumerate(_below(cell)):
        pen.text((left, top + _SIDE + 2 + number * _LINE), line, fill=_QUIET, font=font)


def _fit(image: Image.Image) -> Image.Image:
    """Small pictures are enlarged by whole pixels, so that they are seen as they are."""
    factor = _SIDE // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return shrink(image, _SIDE)


def _below(cell: ViewCell) -> Sequence[str]:
    lines = [line for step in cell.steps for line in textwrap.wrap(printable(step), _LETTERS)]
    return lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "..."]


def _left(column: int) -> int:
    return _GAP + column * (_SIDE + _GAP)


def printable(text: str) -> str:
    """Letters that Pillow's own font has."""
    plain = text.replace("σ", "sigma").replace("×", "x").replace("…", "...").replace("°", " deg")
    return plain.encode("latin-1", "replace").decode("latin-1")
