"""A method in its five slots, as an SVG."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from html import escape

from contralex.explaining import QUESTIONS, Box, Explained, name_views
from contralex.plugins.company import ViewCompany

_BOX = (216, 92)
_PLACES = {
    "views": (16, 128),
    "encoder": (288, 56),
    "key_encoder": (288, 200),
    "negatives": (560, 200),
    "targets": (560, 328),
    "loss": (832, 128),
}
_WIDTH, _HEIGHT = 1064, 448
_TOP, _BAND = 452, 226  # of the first further look-up; the height of each
_INK, _QUIET, _GRADIENT = "#1f2933", "#7b8794", "#c2410c"
_WIDE = 36  # characters in a line of a box
_CELLS = {
    "#": "#52606d",
    ".": "#e4e7eb",
    "o": "#f0a37f",
    " ": "#ffffff",
    "a": "#f3c9b0",
    "b": "#b8c9d9",
    "x": "#a3958f",
}


def svg(method: Explained) -> str:
    """One picture: orange arrows carry a gradient back to where they come from, grey ones do not."""
    height = _HEIGHT + _BAND * len(method.look_ups)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" role="img" aria-label="{escape(method.name)} in the five slots">',
        f"<title>{escape(method.name)}: {escape(method.summary)}</title>",
        "<defs>" + _marker("quiet", _QUIET) + _marker("gradient", _GRADIENT) + "</defs>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 28, method.name, 18, weight=600),
        *(_text(16, 48 + 15 * row, line, 12, _QUIET) for row, line in enumerate(_wrapped(method.summary, 38)[:4])),
        *_arrows(method),
        *(
            _drawn(method.boxes[slot], place)
            for slot, place in _PLACES.items()
            if slot != "negatives" or method.has_dictionary
        ),
        *_company(method),
        *(part for row, name in enumerate(method.look_ups) for part in _band(method, name, _TOP + _BAND * row)),
        *_legend(method, height),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _arrows(method: Explained) -> Iterator[str]:
    learnt_entries = method.keys_learn or method.boxes["negatives"].learns
    learnt_targets = method.keys_learn and not method.has_dictionary  # a key that is regressed on, from both sides
    yield _arrow("M232 174 H260 V102 H288", False)
    yield _arrow("M232 174 H260 V246 H288", False)
    yield _arrow("M504 102 H804 V160 H832", True, "queries", (510, 96))
    yield _arrow(
        "M396 148 V200", False, "the same" if method.shares_weights else method.key_side, (402, 179), dashed=True
    )
    yield _arrow("M396 292 V374 H560", learnt_targets, "keys", (404, 368))
    yield _arrow("M776 374 H964 V220", learnt_targets, "what is wanted", (782, 368))
    if method.has_dictionary:
        yield _arrow("M504 246 H560", method.keys_learn, "keys", (510, 240))
        yield _arrow("M776 246 H916 V220", learnt_entries, "what can be found", (782, 240))
        yield _arrow("M668 292 V328", False)


def _band(method: Explained, name: str, top: float) -> Iterator[str]:
    """A further look-up, below: its queries and keys come from the same two encoders."""
    asked = method.look_ups[name]
    learnt_targets = method.keys_learn and not asked.has_dictionary
    yield f'<path d="M16 {top - 14} H{_WIDTH - 16}" stroke="{_QUIET}" stroke-width="0.6"/>'
    yield _text(16, top + 14, name, 15, weight=600)
    about = [f"of {asked.output}, weight {asked.weight}", *_wrapped(asked.matches, 38)[:4]]
    yield from (_text(16, top + 32 + 15 * row, line, 11, _QUIET) for row, line in enumerate(about))
    yield _text(288, top + 30, f"queries: {asked.output}", 11)
    yield _text(288, top + 160, f"keys: {asked.output}", 11)
    yield _arrow(f"M400 {top + 26} H520 V{top - 4} H940 V{top + 50}", True)
    yield _arrow(f"M400 {top + 156} H560", learnt_targets)
    yield _arrow(f"M776 {top + 156} H940 V{top + 142}", learnt_targets, "what is wanted", (782, top + 170))
    if asked.has_dictionary:
        entries = method.keys_learn or asked.boxes["negatives"].learns
        yield _arrow(f"M480 {top + 156} V{top + 52} H560", method.keys_learn)
        yield _arrow(f"M776 {top + 64} H832", entries)
    places = {"negatives": (560, top + 6), "targets": (560, top + 110), "loss": (832, top + 50)}
    for slot, place in places.items():
        if slot != "negatives" or asked.has_dictionary:
            yield _drawn(asked.boxes[slot], place)


def _company(method: Explained) -> Iterator[str]:
    """Below the views, what they have beside their pixels, and which side sees what."""
    top, cell, line, gap = 238, 9, 13, 20
    if len(method.company) > 1:
        cell, line, gap = 6, 11, 16
    for each in method.company:
        yield _text(16, top, f"{each.name} of {name_views(each.views)}", 11, weight=600)
        yield _cells(each, 16, top + 8, cell)
        left = 28 + 7 * cell
        lines = [part for words in each.lines for part in _wrapped(words, (280 - left) // 6)]
        yield from (_text(left, top + 16 + line * row, words, 10) for row, words in enumerate(lines))
        top += 8 + max(7 * cell, line * len(lines)) + gap
    if method.sides is not None:
        queries, keys = method.sides
        yield _text(16, top, f"queries are made of {queries},", 11)
        yield _text(16, top + line, f"keys of {keys}", 11)


def _cells(company: ViewCompany, x: float, y: float, side: float) -> str:
    """A drawing, cell by cell; the tip says what it is of."""
    tip = escape("\n".join(company.lines))
    cells = (
        f'<rect x="{x + side * column:g}" y="{y + side * row:g}" width="{side:g}" height="{side:g}" '
        f'fill="{_CELLS[mark]}" stroke="#ffffff" stroke-width="1"/>'
        for row, marks in enumerate(company.drawing)
        for column, mark in enumerate(marks)
    )
    return "\n".join([f"<g><title>{tip}</title>", *cells, "</g>"])


def _drawn(box: Box, place: tuple[float, float]) -> str:
    slot, (x, y), (width, height) = box.slot, place, _BOX
    settings = [line for setting in box.settings for line in _wrapped(setting, _WIDE)]
    shown = settings if len(settings) <= 3 else [*settings[:2], settings[2][: _WIDE - 4] + " ..."]
    edge = _GRADIENT if box.learns else _QUIET
    tip = escape("\n".join([QUESTIONS[slot], *box.settings]))
    return "\n".join(
        [
            f"<g><title>{tip}</title>",
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="#f8fafc" stroke="{edge}" '
            f'stroke-width="{2 if box.learns else 1}"/>',
            _text(x + 10, y + 18, slot.replace("_", " "), 11, _QUIET),
            _text(x + 10, y + 37, box.kind, 15 if len(box.kind) <= 21 else 12.5, weight=600),
            *(_text(x + 10, y + 53 + 13 * row, line, 10) for row, line in enumerate(shown)),
            "</g>",
        ]
    )


def _arrow(
    path: str, gradient: bool, label: str = "", at: tuple[float, float] = (0, 0), *, dashed: bool = False
) -> str:
    colour, marker = (_GRADIENT, "gradient") if gradient else (_QUIET, "quiet")
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    line = f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash} marker-end="url(#{marker})"/>'
    return line + (_text(*at, label, 11, colour) if label else "")


def _legend(method: Explained, height: float) -> Iterator[str]:
    y = height - 44
    yield _text(16, _HEIGHT - 44, "; ".join(filter(None, [method.matches, method.weighed])), 11)
    yield f'<path d="M16 {y + 20} h36" stroke="{_GRADIENT}" stroke-width="1.6" marker-end="url(#gradient)"/>'
    yield _text(62, y + 24, "a gradient flows back along it; boxes edged so are learnt", 11, _GRADIENT)
    yield f'<path d="M420 {y + 20} h36" stroke="{_QUIET}" stroke-width="1.6" marker-end="url(#quiet)"/>'
    yield _text(466, y + 24, "no gradient", 11, _QUIET)


def _marker(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{colour}"/></marker>'
    )


def _text(x: float, y: float, words: str, size: float, colour: str = _INK, *, weight: int = 400) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{colour}"'
        + (f' font-weight="{weight}"' if weight != 400 else "")
        + f">{escape(words)}</text>"
    )


def _wrapped(words: str, width: int) -> list[str]:
    return textwrap.wrap(words, width, break_long_words=True)
