"""A method in its five slots, for the terminal."""

from __future__ import annotations

import textwrap

from contralex.explaining import QUESTIONS, Explained


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
