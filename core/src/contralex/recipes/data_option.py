"""What ``--data`` says: a kind of data set by its name, or a file or folder, read by the kind that is made for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contralex.errors import ContralexError
from contralex.files import expand_user, mode
from contralex.plugins.registry import registry


def block(text: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The block ``data``; ``spec`` is what the recipe says so far. A folder with the name of a kind: ``./digits``."""
    if text in registry().kinds("data"):
        return {"kind": text}
    if not text.strip():
        raise ContralexError("--data is empty; give a folder or file, or a kind such as digits")
    path = expand_user(text)
    if mode(path):
        found = _read_by(path, _needed_by_views(spec))
        if found is None:
            raise ContralexError(f"--data {text}: no kind of data that is installed reads such a file; give a folder")
        return found
    if "/" in text or "\\" in text or text.startswith(("~", ".")):
        raise ContralexError(f"--data {text}: there is no such file or folder")
    hint = registry().hint("data", text)
    raise ContralexError(f"--data {text}: there is no such file or folder, and {hint}")


def _read_by(path: Path, needed: frozenset[str]) -> dict[str, Any] | None:
    """Of the kinds that can read it, one that gives what is needed and least beside it.

    So captions are only looked for where a method wants them.
    """
    readers = {}
    for kind in registry().kinds("data"):
        spec = registry().find("data", kind)
        values = spec.of_path(path) if spec is not None else None
        if spec is not None and values is not None:
            readers[kind] = (spec.gives, values)
    fit = [kind for kind, (gives, _) in readers.items() if not needed or needed & gives]
    if not readers:
        return None
    best = min(fit or readers, key=lambda kind: len(readers[kind][0]))
    return {"kind": best, **readers[best][1]}


def _needed_by_views(spec: Mapping[str, Any]) -> frozenset[str]:
    method = spec.get("method")
    views = method.get("views") if isinstance(method, Mapping) else None
    kind = views.get("kind") if isinstance(views, Mapping) else views
    found = registry().find("views", kind) if isinstance(kind, str) else None
    return found.needs.get("data", frozenset()) if found is not None else frozenset()
