"""Laying one layer of a recipe over another, and remembering which layer set each leaf.

Mappings merge key by key; a mapping whose ``kind`` differs replaces the old block; anything else, a list too,
is replaced whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contralex.errors import ContralexError
from contralex.recipes.yaml import Path


@dataclass(frozen=True)
class Origin:
    """A layer that set a leaf, to ``value``, and where. ``place`` is short, for messages."""

    layer: str
    place: str
    line: int | None = None
    value: Any = None
    is_preset: bool = False

    def __str__(self) -> str:
        return self.layer if self.line is None else f"{self.layer}, line {self.line}"


@dataclass(frozen=True)
class Layer:
    """A tree to lay over what is there. ``label`` names it in origins; ``place`` is its file, or its option."""

    label: str
    place: str
    tree: Mapping[str, Any]
    lines: Mapping[Path, int] = field(default_factory=dict)
    root: Path = ()  # where the tree stands in its file: ("presets", "digits")

    def origin(self, path: Path, value: Any) -> Origin:
        line = self.lines.get((*self.root, *path))
        place = self.place if line is None else f"{self.place}:{line}"
        return Origin(self.label, place, line, value, self.root[:1] == ("presets",))


@dataclass
class Merged:
    """The data so far, and for each leaf the layers that set it, lowest first.

    ``taken_out``: where ``null`` was laid over a value, and stands for its absence.
    """

    data: dict[str, Any] = field(default_factory=dict)
    history: dict[Path, list[Origin]] = field(default_factory=dict)
    touched: list[Path] = field(default_factory=list)  # leaves in the order in which they were set
    taken_out: set[Path] = field(default_factory=set)
    # A block -> the paths one key longer that lead to leaves of the history, so that a block is forgotten at once.
    _inside: dict[Path, dict[Path, None]] = field(default_factory=dict)

    def lay(self, layer: Layer) -> None:
        for key, value in layer.tree.items():
            self._put(self.data, key, value, (key,), layer)

    def set(self, keys: Sequence[str], value: Any, layer: Layer) -> None:
        """One value by its path, in which a number is a place in a list that is already there."""
        node: Any = self.data
        parent: Any = self.data  # what comes after the last list on the way merges like any layer
        path: list[str | int] = []
        start = 0
        for depth, key in enumerate(keys):
            if isinstance(node, list):
                path.append(_index(key, node, path, layer))
                parent, start = node, depth
            elif isinstance(node, dict) and key in node:
                path.append(key)
            else:
                break
            node = node[path[-1]]
        first = path[start] if path else keys[0]
        self._put(parent, first, _nested(keys[start + 1 :], value), (*path[:start], first), layer)

    def _put(self, parent: Any, key: str | int, value: Any, path: Path, layer: Layer) -> None:
        old = parent.get(key) if isinstance(parent, dict) else parent[key]
        if not isinstance(value, Mapping) or not value:
            self._forget(path, and_itself=isinstance(old, dict | list))
            if value is None and old is not None:
                self.taken_out.add(path)
            parent[key] = _copy(value)
            if isinstance(parent, list) and _is_leaf(parent):  # an item of a list that is remembered as a whole
                path, value = path[:-1], list(parent)
            for leaf, held in leaves(value, path):
                self._remember(leaf, layer.origin(leaf, held))
            return
        if not isinstance(old, dict) or ("kind" in value and value["kind"] != old.get("kind", value["kind"])):
            self._forget(path, and_itself=True)
            dropped = old if isinstance(old, dict) else {}
            self.taken_out |= {(*path, name) for name, item in value.items() if item is None and name in dropped}
            old = parent[key] = {}
        for name, item in value.items():
            self._put(old, name, item, (*path, name), layer)

    def drop(self, path: Path) -> None:
        """A key out of its block, as if no layer had set it."""
        block: Any = self.data
        for key in path[:-1]:
            block = block[key]
        del block[path[-1]]

    def _remember(self, leaf: Path, origin: Origin) -> None:
        self.history.setdefault(leaf, []).append(origin)
        self.touched.append(leaf)
        for length in range(len(leaf) - 1, -1, -1):
            beside = self._inside.setdefault(leaf[:length], {})
            if leaf[: length + 1] in beside:
                return
            beside[leaf[: length + 1]] = None

    def _forget(self, path: Path, and_itself: bool) -> None:
        """What was known below a block that is replaced; who chose its kinds before is still worth telling."""
        kind = (*path, "kind")
        below = list(self._inside.pop(path, ()))
        while below:
            known = below.pop()
            below += self._inside.pop(known, ())
            if known != kind:
                self.history.pop(known, None)
        if kind in self.history:
            self._inside[path] = {kind: None}
        if and_itself:
            self.history.pop(path, None)


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value with its path. A list of scalars is one leaf, and so is what is empty."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and not _is_leaf(value):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


def _is_leaf(values: list[Any]) -> bool:
    return not any(isinstance(item, Mapping) for item in values)


def dotted(path: Sequence[str | int]) -> str:
    return ".".join(str(key) for key in path)


def _nested(keys: Sequence[str], value: Any) -> Any:
    for key in reversed(keys):
        value = {key: value}
    return value


def _copy(value: Any) -> Any:
    """Layers stay as they were read, because --set changes lists in place."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value


def _index(key: str, there: list[Any], path: Sequence[str | int], layer: Layer) -> int:
    if not key.isdecimal() or int(key) >= len(there):
        count = f"{len(there)} item{'s' if len(there) != 1 else ''}"
        raise ContralexError(
            f"{dotted(path)}.{key}: {dotted(path)} is a list of {count}, counted from 0, and {key} is not one of them "
            f"({layer.place})"
        )
    return int(key)
