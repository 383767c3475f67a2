"""A sweep: values of ``--set`` with commas between them, and the settings that each combination of them makes."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from contralex.errors import ContralexError, remedy

MOST = 1000  # runs of a comparison
_LONGEST = 40  # characters of a value in a name
_BRACKETS, _QUOTES = {"[": "]", "{": "}"}, ('"', "'")
_BEFORE_A_VALUE = ("", "[", "{", ",", ":")  # an apostrophe within a word is no quote


@dataclass(frozen=True)
class Variant:
    """One combination. ``name``: its values by their short paths, ``temperature=0.1``; empty where nothing is swept.
    ``folder``: the same without what a folder's name had better not have. ``sets``: all settings, in the order in which
    they were given."""

    name: str
    folder: str
    sets: tuple[str, ...]


def list_variants(sets: Sequence[str]) -> list[Variant]:
    """Every combination of the values, the last setting changing fastest."""
    choices = [_choices(text) for text in sets]
    if math.prod(map(len, choices)) > MOST:
        raise ContralexError(f"--set: the values make more than {MOST} combinations; leave some out")
    swept = [text.partition("=")[0].strip() for text, texts in zip(sets, choices, strict=True) if len(texts) > 1]
    short = _short_paths(swept)
    combinations = list(itertools.product(*choices))
    names = _all_different([_name(combination, short) for combination in combinations])
    places = _all_different([_folder_name(name) for name in names])
    return [Variant(*each) for each in zip(names, places, combinations, strict=True)]


def _choices(text: str) -> list[str]:
    """``a=1,2`` is ``a=1`` and ``a=2``. A comma within brackets or quotes belongs to the value."""
    path, equals, value = text.partition("=")
    values = [each.strip() for each in split_values(value)]
    if len(values) == 1:
        return [text]
    if not all(values):
        raise ContralexError(
            f"--set {text}: a value between the commas is empty; write null for none, or quote a value that holds a "
            "comma:" + remedy("--set", f'{path}="{value}"')
        )
    doubled = next((each for each in values if values.count(each) > 1), None)
    if doubled is not None:
        raise ContralexError(f"--set {text}: {doubled} stands there twice; leave one out")
    return [f"{path}{equals}{each}" for each in values]


def split_values(text: str) -> list[str]:
    """At the commas that stand outside brackets and quotes."""
    parts, closing = [""], list[str]()
    for mark in text:
        if closing and mark == closing[-1]:
            closing.pop()
        elif mark in _BRACKETS and not _is_quoted(closing):
            closing.append(_BRACKETS[mark])
        elif mark in _QUOTES and not _is_quoted(closing) and parts[-1].rstrip()[-1:] in _BEFORE_A_VALUE:
            closing.append(mark)
        elif mark == "," and not closing:
            parts.append("")
            continue
        parts[-1] += mark
    return parts


def _is_quoted(closing: Sequence[str]) -> bool:
    return bool(closing) and closing[-1] in _QUOTES


def _short_paths(paths: Sequence[str]) -> dict[str, str]:
    """The last word of each path, or the whole path where another one ends in the same word."""
    last = [path.rpartition(".")[2] for path in paths]
    return {path: word if last.count(word) == 1 else path for path, word in zip(paths, last, strict=True)}


def _name(sets: Sequence[str], short: dict[str, str]) -> str:
    said = [(path.strip(), value.strip()) for path, _, value in (text.partition("=") for text in sets)]
    return " ".join(f"{short[path]}={_shorten(value)}" for path, value in said if path in short)


def _shorten(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 3]}..."


def _folder_name(name: str) -> str:
    """What file systems or shells do not take becomes ``-``."""
    return re.sub(r"[^\w.=+-]+", "-", name).strip("-")


def _all_different(names: Sequence[str]) -> list[str]:
    """A number behind each name that stands there already, as two long values may be cut to one text."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        found.append(next(each for each in itertools.chain([name], numbered) if each not in found))
    return found
