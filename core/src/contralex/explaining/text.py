"""A method in its five slots, for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from contralex.explaining import QUESTIONS, Box, Explained, name_views


def text(method: Explained, width: int = 100) -> str:
    lines = [f"{method.name}: {method.summary}", *([method.paper] if method.paper else []), ""]
    views, others = {"views": method.boxes["views"]}, {k: box for k, box in method.boxes.items() if k != "views"}
    lines += [*_boxes(views, width), *_company(method, width), *_boxes(others, width)]
    lines.append(f"{'matches':<12} {method.matches}")
    lines += [f"{'':<12} {method.weighed}"] if method.weighed else []
    for name, asked in method.look_ups.items():
        lines += ["", f"look-up {name} of the encoder's {asked.output}, weight {asked.weight}"]
        lines += [*_boxes(asked.boxes, width), f"{'matches':<12} {asked.matches}"]
    return "\n".join([*lines, "", *_flow(method)])


def _boxes(boxes: Mapping[str, Box], width: int) -> Iterator[str]:
    for slot, box in boxes.items():
        yield f"{slot:<12} {box.kind:<20} {QUESTIONS[slot]}{', learnt' if box.learns else ''}"
        for setting in box.settings:
            yield from _indented(setting, width)


def _company(method: Explained, width: int) -> Iterator[str]:
    for each in method.company:
        yield from _indented(f"{each.name} of {name_views(each.views)}: {'; '.join(each.lines)}", width)
    if method.sides is not None:
        queries, keys = method.sides
        yield from _indented(f"queries are made of {queries}; keys of {keys}", width)


def _indented(words: str, width: int) -> list[str]:
    return textwrap.wrap(words, width - 16, initial_indent=" " * 13, subsequent_indent=" " * 15)


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
