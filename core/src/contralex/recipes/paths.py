"""Fields that name a file or a folder: ``root: Annotated[str, LocalPath()]``.

A recipe may say ``./photos``, which is meant from the folder in which the command is given. A run stores the whole
path, so that it can be resumed and evaluated from any other folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contralex.files import expand_user, mode
from contralex.plugins.spec import Spec

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class LocalPath:
    """``may_be_a_name``: the text is a path only where something lies there, as of a data set of a hub."""

    may_be_a_name: bool = False


def absolute(text: str) -> str:
    try:
        path = expand_user(text).absolute()
        return str(path.resolve() if ".." in path.parts else path)
    except OSError:  # the present folder was removed
        return text


def local_paths(run: Spec) -> dict[Keys, str]:
    """Where the spec names files and folders, and what it says there."""
    return {keys: value for keys, value, marker in _found(run, ()) if not marker.may_be_a_name}


def anchored(spec: Any) -> Any:
    """The same spec with whole paths."""
    if isinstance(spec, Spec):
        changed = {}
        for name, field in type(spec).model_fields.items():
            value, marker = getattr(spec, name), _marker(field.metadata)
            new = anchored(value)
            if marker is not None and isinstance(value, str) and (mode(expand_user(value)) or not marker.may_be_a_name):
                new = absolute(value)
            if new is not value:
                changed[name] = new
        return spec.model_copy(update=changed) if changed else spec
    if isinstance(spec, dict):
        return {key: anchored(value) for key, value in spec.items()}
    if isinstance(spec, list | tuple):
        return type(spec)(anchored(value) for value in spec)
    return spec


def missing(spec: Spec) -> list[Path]:
    """The files and folders that a spec names, and that are not there."""
    return [path for text in local_paths(spec).values() if not mode(path := expand_user(text)) and "*" not in text]


def _found(value: Any, keys: Keys) -> Iterator[tuple[Keys, str, LocalPath]]:
    if isinstance(value, Spec):
        for name, field in type(value).model_fields.items():
            inner, marker = getattr(value, name), _marker(field.metadata)
            if marker is not None and isinstance(inner, str):
                yield (*keys, name), inner, marker
            yield from _found(inner, (*keys, name))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _found(inner, (*keys, key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _found(inner, (*keys, number))


def _marker(metadata: list[Any]) -> LocalPath | None:
    return next((each for each in metadata if isinstance(each, LocalPath)), None)
