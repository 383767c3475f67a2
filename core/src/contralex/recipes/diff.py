"""What differs between two resolved runs, block by block and leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from contralex.plugins.spec import Spec
from contralex.recipes.layers import Resolved
from contralex.recipes.merging import dotted
from contralex.recipes.yaml import Path

_NOT_COMPARED = ("schema_", "schema", "name", "summary", "paper")
_ABSENT = object()


@dataclass(frozen=True)
class Change:
    """One difference. A block whose ``kind`` differs is one change, written ``queue(size=65536)``."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}: {self.before} → {self.after}"


def diff(before: Resolved, after: Resolved) -> list[Change]:
    """In the order of the spec; what the runs are called is not compared."""
    return _changes(before.run, after.run)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The same of plain data, for specs whose parts are not all installed."""
    return _changes(before, after)


def _changes(before: Any, after: Any) -> list[Change]:
    found = (Change(dotted(path), shown(old), shown(new)) for path, old, new in differing(before, after))
    return [change for change in found if change.path not in _NOT_COMPARED]


def differing(before: Any, after: Any, path: Path = (), *, by_key: bool = True) -> Iterator[tuple[Path, Any, Any]]:
    """Where two values differ, and both there. Blocks of different kinds are one place.

    ``by_key``: a mapping with other keys is looked at key by key; if not, it is one place as well.
    """
    if isinstance(before, Spec) and type(before) is type(after):
        for name in type(before).model_fields:
            yield from differing(getattr(before, name), getattr(after, name), (*path, name), by_key=by_key)
    elif isinstance(before, Mapping) and isinstance(after, Mapping) and (by_key or before.keys() == after.keys()):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from differing(before.get(key, _ABSENT), after.get(key, _ABSENT), (*path, key), by_key=by_key)
    elif before != after:
        yield path, before, after


def shown(value: Any) -> str:
    """A value on one line, with its defaults: ``memory_bank(draws=4096, momentum=0.5)``."""
    if value is _ABSENT:
        return "absent"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Spec):
        fields = {name: item for name, item in value if name != "kind" and item != {}}
        inside = ", ".join(f"{name}={shown(item)}" for name, item in fields.items())
        kind = str(getattr(value, "kind", ""))
        return kind if kind and not inside else f"{kind}({inside})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_item(item) for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _item(value: Any) -> str:
    """A block without a kind, in a list, in brief: a layer is ``2048 batch relu``. What is not said is the default."""
    if not isinstance(value, Spec) or "kind" in type(value).model_fields:
        return shown(value)
    words = []
    for name, field in type(value).model_fields.items():
        item = getattr(value, name)
        if field.is_required() or (isinstance(item, str) and item != field.default and item != "none"):
            words.append(shown(item))
        elif item != field.default:
            words.append(f"{name}={shown(item)}")
    return " ".join(words)
