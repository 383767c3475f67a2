"""A method as boxes in the five slots, as text and as SVG, with where gradients flow.

All is read from the spec: nothing is built, so nothing here needs torch.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from contralex.spec.base import Spec
from contralex.spec.layers import Resolved
from contralex.spec.story import brief

QUESTIONS = {
    "views": "what a sample becomes",
    "encoder": "how a view becomes a query",
    "key_encoder": "how a view becomes a key",
    "negatives": "what else is in the dictionary",
    "targets": "what the look-up should return",
    "loss": "how wrong the look-up was",
}


@dataclass(frozen=True)
class Box:
    """A slot: the kind in it, its settings, and whether the optimiser moves what is in it."""

    slot: str
    kind: str
    settings: tuple[str, ...]
    learns: bool


@dataclass(frozen=True)
class Explained:
    name: str
    summary: str
    paper: str
    boxes: dict[str, Box]
    matches: str
    keys_learn: bool
    has_dictionary: bool
    key_side: str  # how the key encoder comes by its weights


def explained(resolved: Resolved) -> Explained:
    run = resolved.run
    method = run.method
    slots = {slot: getattr(method, slot) for slot in QUESTIONS}
    key_encoder = method.key_encoder
    keys_learn = "keys with gradient" in key_encoder.offers()
    trained = {"encoder"} | {slot for slot, spec in slots.items() if spec.learns}
    return Explained(
        name=run.name,
        summary=run.summary,
        paper=run.paper,
        boxes={slot: Box(slot, _kind(spec), tuple(_settings(spec)), slot in trained) for slot, spec in slots.items()},
        matches=_matches(run.matches()) + ("" if method.reduction == "mean" else ", summed"),
        keys_learn=keys_learn,
        has_dictionary="no entries" not in method.negatives.offers(),
        key_side=_key_side(_kind(key_encoder), keys_learn),
    )


def _kind(spec: Spec) -> str:
    return str(getattr(spec, "kind", ""))


def _settings(spec: Spec) -> Iterator[str]:
    """Its fields, one a line, but those that are empty, off, or about how it is stored."""
    groups = getattr(spec, "groups", None)
    if isinstance(groups, dict):
        for name, group in groups.items():
            size = group.resolved(groups).crop.size
            yield f"{name}: {group.count} of {size} px" + ("" if group.key else ", queries only")
        return
    for name, field in type(spec).model_fields.items():
        value = getattr(spec, name)
        is_default = value == field.get_default(call_default_factory=True)
        is_said = isinstance(value, int | float) and not isinstance(value, bool)
        if name != "kind" and (not is_default or is_said):
            yield f"{name}: {brief(value)}"


def _matches(pairs: Sequence[tuple[int, int]]) -> str:
    """Queries that look up the same keys are told together: ``view 0 looks up view 1; views 2-7 look up views 0-1``."""
    asked: dict[int, list[int]] = {}
    for query, key in sorted(pairs):
        asked.setdefault(query, []).append(key)
    told: dict[tuple[int, ...], list[int]] = {}
    for query, keys in asked.items():
        told.setdefault(tuple(keys), []).append(query)
    return "; ".join(
        f"{_views(queries)} {'look' if len(queries) > 1 else 'looks'} up {_views(keys)}"
        for keys, queries in told.items()
    )


def _views(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"view {numbers[0]}"
    in_a_row = list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return "views " + (f"{numbers[0]}-{numbers[-1]}" if in_a_row else ", ".join(map(str, numbers)))


def _key_side(kind: str, keys_learn: bool) -> str:
    if kind == "shared":
        return "the query's encoder itself"
    return "learns as well" if keys_learn else "follows the encoder" if kind == "momentum" else "not trained"


# As text


def text(method: Explained, width: int = 100) -> str:
    lines = [f"{method.name}: {method.summary}", *([method.paper] if method.paper else []), ""]
    for slot, question in QUESTIONS.items():
        box = method.boxes[slot]
        lines.append(f"{slot:<12} {box.kind:<20} {question}{', learnt' if box.learns else ''}")
        for setting in box.settings:
            lines += textwrap.wrap(setting, width - 16, initial_indent=" " * 13, subsequent_indent=" " * 15)
    lines += [f"{'matches':<12} {method.matches}", "", *_flow(method)]
    return "\n".join(lines)


def _flow(method: Explained) -> list[str]:
    both, one_way = "<==>", "--->"
    kind = {slot: box.kind for slot, box in method.boxes.items()}
    width = max(len(kind[slot]) for slot in ("encoder", "key_encoder", "negatives"))
    keys = both if method.keys_learn else one_way
    entries = both if method.keys_learn or method.boxes["negatives"].learns else one_way
    lines = [
        f"views {one_way} {kind['encoder']:<{width}} {both} queries {both} {kind['loss']}",
        f"views {one_way} {kind['key_encoder']:<{width}} {keys} keys, for {kind['targets']} {one_way} what is wanted",
    ]
    if method.has_dictionary:
        lines.append(f"keys  {one_way} {kind['negatives']:<{width}} {entries} what can be found")
    return [*lines, "", f"{both} a gradient flows back, {one_way} none does. The key encoder: {method.key_side}."]


# As SVG

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
_INK, _QUIET, _GRADIENT = "#1f2933", "#7b8794", "#c2410c"


def svg(method: Explained) -> str:
    """One picture: orange arrows carry a gradient back to where they come from, grey ones do not."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="system-ui, sans-serif" role="img" aria-label="{escape(method.name)} in the five slots">',
        f"<title>{escape(method.name)}: {escape(method.summary)}</title>",
        "<defs>" + _marker("quiet", _QUIET) + _marker("gradient", _GRADIENT) + "</defs>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(16, 28, method.name, 18, weight=600),
        *(_text(16, 48 + 15 * row, line, 12, _QUIET) for row, line in enumerate(_wrapped(method.summary, 38)[:4])),
        *_arrows(method),
        *(_drawn(method, slot) for slot in _PLACES if slot != "negatives" or method.has_dictionary),
        *_legend(method),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _arrows(method: Explained) -> Iterator[str]:
    same = method.boxes["key_encoder"].kind == "shared"
    learnt_entries = method.keys_learn or method.boxes["negatives"].learns
    learnt_targets = method.keys_learn and not method.has_dictionary  # a key that is regressed on, from both sides
    yield _arrow("M232 174 H260 V102 H288", False)
    yield _arrow("M232 174 H260 V246 H288", False)
    yield _arrow("M504 102 H804 V160 H832", True, "queries", (510, 96))
    yield _arrow("M396 148 V200", False, "the same" if same else method.key_side, (402, 179), dashed=True)
    yield _arrow("M396 292 V374 H560", learnt_targets, "keys", (404, 368))
    yield _arrow("M776 374 H964 V220", learnt_targets, "what is wanted", (782, 368))
    if method.has_dictionary:
        yield _arrow("M504 246 H560", method.keys_learn, "keys", (510, 240))
        yield _arrow("M776 246 H916 V220", learnt_entries, "what can be found", (782, 240))
        yield _arrow("M668 292 V328", False)


def _drawn(method: Explained, slot: str) -> str:
    box, (x, y), (width, height) = method.boxes[slot], _PLACES[slot], _BOX
    settings = [line for setting in box.settings for line in _wrapped(setting, 39)]
    shown = settings if len(settings) <= 3 else [*settings[:2], settings[2][:35] + " ..."]
    edge = _GRADIENT if box.learns else _QUIET
    tip = escape("\n".join([QUESTIONS[slot], *box.settings]))
    return "\n".join(
        [
            f"<g><title>{tip}</title>",
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="#f8fafc" stroke="{edge}" '
            f'stroke-width="{2 if box.learns else 1}"/>',
            _text(x + 10, y + 18, slot.replace("_", " "), 11, _QUIET),
            _text(x + 10, y + 37, box.kind, 15, weight=600),
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


def _legend(method: Explained) -> Iterator[str]:
    y = _HEIGHT - 44
    yield _text(16, y, method.matches, 11)
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
