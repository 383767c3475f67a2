"""A package of several parts, composed from those of one part each.

Every package of one part has the same files, and its recipe and card the same blocks in the same order. A composed
package has each part's own module as it is, one ``spec.py`` and one ``plugin.py`` with the classes and hooks of all,
and the recipe and the card of one of them, the frame, in which the others' own blocks replace the frame's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from contralex.cli.composing.card import merge_cards
from contralex.cli.composing.modules import docstring_of, merge_modules
from contralex.cli.composing.parts import Start, choose_frame, describe_part
from contralex.cli.composing.recipe import merge_recipes


def compose(packages: Mapping[Start, Mapping[Path, bytes]]) -> dict[Path, bytes]:
    """The files of one package. ``packages``: those of the package of each part, in the order of ``arrange``."""
    composed = {path: content for files in packages.values() for path, content in files.items()}
    listed = _list_parts(packages)
    for path in packages[choose_frame(packages)]:
        if all(path in files for files in packages.values()):  # and not a part's own module
            texts = {start: files[path].decode("utf-8") for start, files in packages.items()}
            composed[path] = _merge(path, texts, listed).encode("utf-8")
    return composed


def _merge(path: Path, texts: Mapping[Start, str], listed: str) -> str:
    if path.suffix == ".yaml":
        return merge_recipes(texts)
    if path.suffix == ".md":
        return merge_cards(texts, listed)
    if path.name == "__init__.py":
        return f'"""Several parts for contralex, which stand in one look-up.\n\n{listed}\n"""\n'
    if path.name == "spec.py":
        return merge_modules("What a recipe may say about the parts. Imports no torch.", texts.values())
    return merge_modules(_longest(docstring_of(text) for text in texts.values()), texts.values())


def _longest(docstrings: Iterable[str]) -> str:
    """That of a hook goes on with when it takes part; all others are equal."""
    return max(docstrings, key=len)


def _list_parts(packages: Mapping[Start, Mapping[Path, bytes]]) -> str:
    """A line for each part, from the docstrings of the packages, which are such as ``A loss for contralex: ...``."""
    texts = {
        start: text.decode("utf-8")
        for start, files in packages.items()
        for path, text in files.items()
        if path.name == "__init__.py"
    }
    about = {start: docstring_of(text).partition(": ")[2].removesuffix(".") for start, text in texts.items()}
    return "\n".join(f"* {describe_part(start)}: {text}" for start, text in about.items())
