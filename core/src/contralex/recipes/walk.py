"""Every value within a spec, with its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from contralex.plugins.spec import Spec


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The value itself, then all below it: fields of specs, values of mappings, items of lists by their numbers."""
    yield path, value
    if isinstance(value, Spec):
        below: Any = ((name, getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, Mapping):
        below = value.items()
    elif isinstance(value, list | tuple):
        below = enumerate(value)
    else:
        return
    for name, item in below:
        yield from walk(item, f"{path}.{name}" if path else str(name))
