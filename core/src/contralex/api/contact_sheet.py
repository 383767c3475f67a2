"""A picture of images in rows, each with a line or two below it: PNG, JPEG, or an HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from contralex.api.settings import PathLike, path_text
from contralex.errors import ContralexError
from contralex.files import expand_user, write_bytes, write_text

CELLS, SECTIONS = 300, 100  # of a picture, at most
_COLUMNS = 8
_SIDE, _GAP, _LINE, _MARGIN = 128, 12, 16, 16  # pixels
_STEP = _SIDE + _GAP
_CELL_HEIGHT = _SIDE + 2 * _LINE + _GAP
_INK, _QUIET, _PAPER, _EMPTY, _MARK = "#1f2933", "#616e7c", "#ffffff", "#e4e7eb", "#c2410c"
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".html": "HTML"}


@dataclass(frozen=True)
class Cell:
    """``name`` and ``caption`` stand below the image. ``read`` gives it, or None where it cannot be read. A ``marked``
    one has a frame."""

    name: str
    caption: str
    read: Callable[[], Image.Image | None]
    marked: bool = False


@dataclass(frozen=True)
class Section:
    heading: str
    cells: Sequence[Cell]


def check(path: PathLike) -> None:
    """Refuses, before anything is computed, a file that could not be written."""
    file = expand_user(str(path_text(path)))
    if file.suffix.lower() not in _FORMATS:
        raise ContralexError(f"{file}: the name of a picture must end in .png, .jpg or .html")
    if not file.parent.is_dir():
        raise ContralexError(f"{file}: there is no folder {file.parent}; make it first")
    if file.is_dir():
        raise ContralexError(f"{file} is a folder; give the name of a file")


def save(path: PathLike, title: str, sections: Iterable[Section]) -> Path:
    """Write the picture whole or not at all, with at most 300 images in 100 sections. It says what is left out."""
    check(path)
    file = expand_user(str(path_text(path)))
    shown, left_out = _bounded(sections)
    kind = _FORMATS[file.suffix.lower()]
    if kind == "HTML":
        write_text(file, "".join(_html(title, shown, left_out)))
    else:
        made = io.BytesIO()
        draw(title, shown, left_out).save(made, kind)
        write_bytes(file, made.getvalue())
    return file


def _bounded(sections: Iterable[Section]) -> tuple[list[Section], int]:
    """The first sections that have room, and how many others there are."""
    shown: list[Section] = []
    left_out, room = 0, CELLS
    for section in sections:
        if len(shown) == SECTIONS or not room:
            left_out += 1
            continue
        shown.append(Section(section.heading, section.cells[:room]))
        room -= len(shown[-1].cells)
    return shown, left_out


def draw(title: str, sections: Sequence[Section], left_out: int = 0) -> Image.Image:
    """All sections below each other. A text is cut where its column, or the picture, ends."""
    columns = max(4, min(_COLUMNS, max((len(section.cells) for section in sections), default=0)))
    width = 2 * _MARGIN + columns * _STEP - _GAP
    heights = [2 * _LINE + -(-len(section.cells) // columns) * _CELL_HEIGHT for section in sections]
    sheet = Image.new("RGB", (width, 2 * _MARGIN + 2 * _LINE + sum(heights) + _LINE * bool(left_out)), _PAPER)
    pen = _Pen(sheet)
    pen.write((_MARGIN, _MARGIN), title, width - 2 * _MARGIN, large=True)
    top = _MARGIN + 2 * _LINE
    for section, height in zip(sections, heights, strict=True):
        pen.write((_MARGIN, top), section.heading, width - 2 * _MARGIN, large=True)
        for number, cell in enumerate(section.cells):
            row, column = divmod(number, columns)
            pen.draw(cell, _MARGIN + column * _STEP, top + 2 * _LINE - 4 + row * _CELL_HEIGHT)
        top += height
    if left_out:
        pen.write((_MARGIN, top), _more(left_out), width - 2 * _MARGIN)
    return sheet


class _Pen:
    def __init__(self, sheet: Image.Image) -> None:
        self._sheet = sheet
        self._draw = ImageDraw.Draw(sheet)
        self._fonts = {large: ImageFont.load_default(14 if large else 11) for large in (False, True)}

    def draw(self, cell: Cell, left: int, top: int) -> None:
        image = cell.read()
        box = (left, top, left + _SIDE - 1, top + _SIDE - 1)
        if image is None:
            self._draw.rectangle(box, _EMPTY)
            self.write((left + 8, top + _SIDE // 2 - _LINE // 2), "cannot be read", _SIDE - 16, quiet=True)
        else:
            small = thumbnail(image)
            self._sheet.paste(small, (left + (_SIDE - small.width) // 2, top + (_SIDE - small.height) // 2))
        if cell.marked:
            self._draw.rectangle((left - 3, top - 3, left + _SIDE + 2, top + _SIDE + 2), outline=_MARK, width=2)
        self.write((left, top + _SIDE + 4), cell.caption, _SIDE)
        self.write((left, top + _SIDE + 4 + _LINE), cell.name, _SIDE, quiet=True, keep_end=True)

    def write(
        self,
        at: tuple[int, int],
        text: str,
        room: int,
        *,
        large: bool = False,
        quiet: bool = False,
        keep_end: bool = False,
    ) -> None:
        font = self._fonts[large]
        cut = fit(" ".join(text.split()), room, font.getlength, keep_end=keep_end)
        self._draw.text(at, cut, _QUIET if quiet else _INK, font=font)


def fit(text: str, room: float, length: Callable[[str], float], *, keep_end: bool = False) -> str:
    """The text, or as much of its beginning (of its end) as fits into ``room`` with three dots."""
    if length(text) <= room:
        return text
    low, high = 0, len(text)
    while low < high:  # the most characters that fit
        middle = (low + high + 1) // 2
        if length(_cut(text, middle, keep_end)) <= room:
            low = middle
        else:
            high = middle - 1
    return _cut(text, low, keep_end)


def _cut(text: str, count: int, keep_end: bool) -> str:
    return f"...{text[len(text) - count :]}" if keep_end else f"{text[:count]}..."


def thumbnail(image: Image.Image) -> Image.Image:
    """A copy whose longer side has 128 pixels; a smaller image is enlarged without smoothing."""
    scale = _SIDE / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    how = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    return image.convert("RGB").resize(size, how, reducing_gap=2.0 if scale < 1 else None)


def _more(left_out: int) -> str:
    return f"and {left_out:,} more that are not shown here"


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; }
h1 { font-size: 1.3rem; }
h2 { font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
section div { display: flex; flex-wrap: wrap; gap: 12px; }
figure { width: 128px; margin: 0; }
figure img, figure span { display: flex; width: 128px; height: 128px; object-fit: contain; align-items: center;
  justify-content: center; background: #8882; }
figure.marked img { outline: 2px solid #c2410c; outline-offset: 1px; }
figcaption { font-size: 12px; overflow-wrap: anywhere; }
small { opacity: .7; }
"""


def _html(title: str, sections: Sequence[Section], left_out: int) -> Iterator[str]:
    yield f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
    yield f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>\n'
    yield f"<h1>{escape(title)}</h1>\n"
    for section in sections:
        yield f"<section>\n<h2>{escape(section.heading)}</h2>\n<div>\n"
        for cell in section.cells:
            yield f"<figure{' class=marked' if cell.marked else ''}>{_image(cell)}"
            yield f"<figcaption>{escape(cell.caption)}<br><small>{escape(cell.name)}</small></figcaption></figure>\n"
        yield "</div>\n</section>\n"
    if left_out:
        yield f"<p>{_more(left_out)}</p>\n"
    yield "</html>\n"


def _image(cell: Cell) -> str:
    image = cell.read()
    if image is None:
        return "<span>cannot be read</span>"
    held = io.BytesIO()
    thumbnail(image).save(held, "JPEG", quality=85)
    data = base64.b64encode(held.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(cell.name)}">'
