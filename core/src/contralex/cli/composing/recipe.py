"""One recipe from those of several parts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from contralex.cli.composing.parts import Start, choose_frame, describe, fields_of, join_papers

_Path = tuple[str, ...]
_PRESET = ("presets", "digits")
_OPEN: tuple[_Path, ...] = (("method",), ("presets",), _PRESET, (*_PRESET, "method"))  # read field by field
_METHOD = ("views", "encoder", "key_encoder", "negatives", "targets", "loss", "matches")
_ORDER = ["", "schema", "name", "summary", "paper", "plugins", "method", *_METHOD, "data", "train", "eval"]
_ORDER += ["presets", "digits"]


def merge_recipes(texts: Mapping[Start, str]) -> str:
    recipes = {start: _read_blocks(text) for start, text in texts.items()}
    merged = dict(recipes[choose_frame(texts)])
    for start, blocks in recipes.items():
        merged |= {path: block for path, block in blocks.items() if path in _own_paths(start)}
    what = describe(list(texts))
    merged["summary",] = f"summary: {what[0].upper()}{what[1:]} of one's own, in one look-up\n"
    papers = join_papers({start: _value(blocks["paper",]).split("; ") for start, blocks in recipes.items()})
    merged["paper",] = f"paper: {'; '.join(papers)}\n\n"
    return "".join(merged[path] for path in sorted(merged, key=lambda path: [_ORDER.index(key) for key in path]))


def _own_paths(start: Start) -> set[_Path]:
    """Where a recipe and its preset speak of the part."""
    fields = fields_of(start)
    return {*fields, *((*_PRESET, *path) for path in fields)}


def _read_blocks(recipe: str) -> dict[_Path, str]:
    """The lines of each field, with the comments and blank lines after them; of those in ``_OPEN`` the first line."""
    blocks: dict[_Path, str] = {}
    at: _Path = ("",)
    for line in recipe.splitlines(keepends=True):
        key = re.match(r"( *)(\w+):", line)
        depth = len(key[1]) // 2 if key else 0
        if key and depth <= len(at) and (not depth or at[:depth] in _OPEN):
            at = (*at[:depth], key[2])
        blocks[at] = blocks.get(at, "") + line
    return blocks


def _value(block: str) -> str:
    return block.partition(":")[2].strip()
