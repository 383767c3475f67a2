"""Reading and writing recipes: YAML 1.2's idea of numbers, and the line of every key.

PyYAML alone follows YAML 1.1, where ``3e-2`` is text, ``on`` is true, and a key that stands twice silently wins
the second time. Here a document is composed into nodes, which know their lines, and the nodes become plain data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from contralex.errors import ContralexError
from contralex.recipes import limits

Path = tuple[str | int, ...]  # from the root of a document to a value: ("method", "encoder", "projector", 0, "width")

_TAG = "tag:yaml.org,2002:"
_SIGNS = list("-+.0123456789")
# YAML 1.2's core schema: what a plain scalar is, by how it looks, and the characters that it may begin with.
_SCALARS: list[tuple[str, str, list[str]]] = [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _SIGNS),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        _SIGNS,
    ),
]


def _with_core_schema(base: Any) -> Any:
    """PyYAML's reader or writer, with the scalars above in place of its own."""
    made: Any = type(base.__name__, (base,), {"yaml_implicit_resolvers": {}})
    for name, pattern, first in _SCALARS:
        made.add_implicit_resolver(_TAG + name, re.compile(rf"(?:{pattern})\Z"), first)
    return made


_DEFAULT_TAGS = {yaml.ScalarNode: f"{_TAG}str", yaml.SequenceNode: f"{_TAG}seq", yaml.MappingNode: f"{_TAG}map"}
_Base = _with_core_schema(getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the C one is ten times as fast


class _Loader(_Base):  # type: ignore[misc, valid-type]  # made above
    """Counts nodes and their depth as they are composed, so that a long or deep text is given up in time.

    PyYAML asks for the resolver of each node as it enters it, which here is the same everywhere.
    """

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self._where = where
        self._depth = self._nodes = 0

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        self._nodes += 1
        self._depth += 1
        if self._nodes > limits.NODES:
            raise ContralexError(limits.too_many(self._where))
        if self._depth > limits.DEPTH + 1:  # a value in the deepest block
            raise ContralexError(limits.too_deep(self._where))

    def ascend_resolver(self) -> None:
        self._depth -= 1

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """The tag of a node that has none. ``implicit``: of a scalar, whether it is plain, without quotes."""
        if kind is yaml.ScalarNode and implicit[0]:
            for tag, pattern in self.yaml_implicit_resolvers.get(value[:1], ()):
                if pattern.match(value):
                    return str(tag)
        return _DEFAULT_TAGS[kind]


_Dumper = _with_core_schema(yaml.SafeDumper)


@dataclass(frozen=True)
class Document:
    """Plain data, and the line (from 1) of each key and list item."""

    data: Any
    lines: dict[Path, int] = field(default_factory=dict)


def read(text: str, where: str, *, is_file: bool = True) -> Document:
    """``where`` names the file in messages, or the option whose value this is."""
    reader = _Reader(where, is_file)
    if len(text) > limits.TEXT:
        raise ContralexError(f"{where}: this has more than {limits.TEXT} characters, too many for a recipe; shorten it")
    try:
        node = _compose(text, where)
    except yaml.MarkedYAMLError as error:
        place = reader.place(error.problem_mark or error.context_mark)
        raise ContralexError(f"{place}: this is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise ContralexError(f"{where}: this is not YAML: {str(error).splitlines()[0]}") from None
    except UnicodeError:  # half of a surrogate pair, from a command line that is not in UTF-8
        raise ContralexError(f"{where}: this is not text in UTF-8; write it as UTF-8") from None
    return Document(None if node is None else reader.plain(node, ()), reader.lines)


def _compose(text: str, where: str) -> yaml.Node | None:
    loader = _Loader(text, where)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


class _Reader:
    def __init__(self, where: str, is_file: bool) -> None:
        self.where = where
        self.is_file = is_file
        self.lines: dict[Path, int] = {}
        self.seen: set[int] = set()

    def plain(self, node: yaml.Node, path: Path) -> Any:
        # An alias is the same node again. It would hide where a value was set, and may hold itself.
        if id(node) in self.seen:
            raise self._mistake(node, "a recipe has no aliases (*name); write the value out")
        self.seen.add(id(node))
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if len(path) >= limits.DEPTH:  # an empty block in the deepest one
            raise ContralexError(limits.too_deep(self.where))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return [self.plain(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._mistake(key, "a key is a word, not a list or a block")
            name = str(key.value)
            if name in found:
                first = self.lines[(*path, name)]
                raise self._mistake(key, f"the key {name[:60]} stands here for the second time (first in line {first})")
            self.lines[(*path, name)] = key.start_mark.line + 1
            found[name] = self.plain(value, (*path, name))
        return found

    def _scalar(self, node: yaml.Node) -> Any:
        kind, text = node.tag.removeprefix(_TAG), str(node.value)
        try:
            if kind == "str":
                return text
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                if len(text) > limits.DIGITS:
                    raise self._mistake(node, f"a whole number has at most {limits.DIGITS} digits; write a smaller one")
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            if kind == "float":
                return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
        except (ValueError, KeyError):
            raise self._mistake(node, f"{text[:60]!r} is not of type {kind}") from None
        raise self._mistake(node, f"a recipe has no tags such as {node.tag.replace(_TAG, '!!')}; it is plain data")

    def place(self, mark: yaml.Mark | None) -> str:
        return f"{self.where}:{mark.line + 1}:{mark.column + 1}" if mark and self.is_file else self.where

    def _mistake(self, node: yaml.Node, text: str) -> ContralexError:
        return ContralexError(f"{self.place(node.start_mark)}: {text}")


def dump(data: Any) -> str:
    """Block style, with lists of scalars, and blocks of scalars inside lists, on one line."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


def _is_flat(values: Any) -> bool:
    return not any(isinstance(value, dict | list) and value for value in values)


def _represent_list(dumper: Any, value: list[Any]) -> yaml.Node:
    node = dumper.represent_sequence(_TAG + "seq", value, flow_style=_is_flat(value))
    for item, child in zip(value, node.value, strict=True):
        if isinstance(item, dict) and _is_flat(item.values()):
            child.flow_style = True
    return node  # type: ignore[no-any-return]


def _represent_float(dumper: Any, value: float) -> yaml.Node:
    text = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    return dumper.represent_scalar(_TAG + "float", text)  # type: ignore[no-any-return]


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(float, _represent_float)
_Dumper.add_representer(dict, lambda dumper, value: dumper.represent_mapping(_TAG + "map", value, flow_style=not value))
_Dumper.ignore_aliases = lambda self, data: True
