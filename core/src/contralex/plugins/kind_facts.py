"""All about a kind as plain data: its fields, their bounds, what it needs and gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from contralex.errors import ContralexError, did_you_mean, find_similar
from contralex.plugins.hooks import SLOTS
from contralex.plugins.registry import registry

if TYPE_CHECKING:
    from contralex.plugins.spec import Spec

SLOT = "x-slot"  # how a spec's schema marks a slot: see contralex.recipes.json_schema
Schema = dict[str, Any]
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def kind_facts(slot: str, spec: type[Spec]) -> dict[str, Any]:
    """All of it as plain data. ``needs`` are sentences of which all must hold."""
    schema = spec.model_json_schema()
    owner = registry().owner(slot, spec.kind_name())
    return {
        "kind": spec.kind_name(),
        "slot": slot,
        "from": f"{owner.name} {owner.version}" if owner else "",
        "documentation": schema.get("description", ""),
        "source": spec.source,
        "gives": ", ".join(sorted(spec.gives)),
        "needs": [f"of {other}: {' or '.join(sorted(words))}" for other, words in spec.needs.items()],
        "fields": _Fields(schema).rows(),
    }


def field_facts(spec: type[Spec]) -> list[dict[str, Any]]:
    """Each field of a spec that is no kind, such as a plugin's settings."""
    return _Fields(spec.model_json_schema()).rows()


def find_kind(path: str) -> tuple[str, type[Spec]]:
    """The slot and the spec of a kind such as ``targets.key_vector``."""
    slot, dot, kind = path.removeprefix("method.").partition(".")
    if not dot or slot not in SLOTS:
        way = did_you_mean(find_similar(slot, SLOTS)) or f"the slots are {', '.join(SLOTS)}"
        raise ContralexError(f"--kind {path}: write it as SLOT.KIND, such as targets.key_vector; {way}")
    spec = registry().find(slot, kind)
    if spec is None:
        raise ContralexError(f"--kind {path}: {registry().hint(slot, kind)}")
    return slot, spec


class _Fields:
    """Reads a JSON Schema as rows. ``blocks``: its definitions, by their names."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.blocks: dict[str, Schema] = schema.get("$defs", {})

    def rows(self) -> list[Schema]:
        return list(self._rows(self.schema, "", ()))

    def _rows(self, block: Schema, before: str, within: tuple[str, ...]) -> Iterator[Schema]:
        """Each field; below one that is a block, the fields of the block by their paths."""
        for name, field in block.get("properties", {}).items():
            if name == "kind":
                continue
            yield {
                "field": before + name,
                "type": self._type(field),
                "bounds": _bounds(field),
                "default": "required" if name in block.get("required", []) else _shown(field.get("default")),
                "description": " ".join(str(field.get("description", "")).split()),
            }
            for inner in dict.fromkeys(self._blocks(field)):
                if inner not in within:
                    names = f"{before}{name}." + ("NAME." if _of_names(field) else "")
                    yield from self._rows(self.blocks[inner], names, (*within, inner))

    def _type(self, field: Schema) -> str:
        if members := _members(field):
            return " or ".join(dict.fromkeys(self._type(member) for member in members))
        if SLOT in field:
            return f"a kind of {field[SLOT]}"
        if "$ref" in field:
            kind = self._kind(field)
            return f"{{kind: {kind}, ...}}" if kind else "block"
        if "enum" in field:
            return " | ".join(map(str, field["enum"]))
        if "prefixItems" in field:
            return f"[{', '.join(self._type(item) for item in field['prefixItems'])}]"
        if field.get("type") == "array":
            return f"list of {self._type(field.get('items', {}))}"
        if _of_names(field):
            return f"{self._type(field['additionalProperties'])} by name"
        return _TYPES.get(str(field.get("type")), str(field.get("type", "anything")))

    def _blocks(self, field: Schema) -> Iterator[str]:
        """The blocks that a field holds, whose fields are rows as well. A schedule is shown by its kind alone."""
        if "$ref" in field and not self._kind(field):
            yield _name(field)
        for inner in _inside(field):
            yield from self._blocks(inner)

    def _kind(self, reference: Schema) -> str:
        found = self.blocks[_name(reference)].get("properties", {}).get("kind", {})
        return str(found.get("const", ""))


_TYPES = {"integer": "whole number", "boolean": "true | false", "string": "text", "object": "block"}


def _bounds(field: Schema) -> str:
    own = [f"{sign} {field[word]:g}" for word, sign in _BOUNDS.items() if word in field]
    return ", ".join(dict.fromkeys([*own, *(text for inner in _inside(field) if (text := _bounds(inner)))]))


def _inside(field: Schema) -> list[Schema]:
    items = [field[word] for word in ("items", "additionalProperties") if isinstance(field.get(word), dict)]
    return [*_members(field), *field.get("prefixItems", []), *items]


def _members(field: Schema) -> list[Schema]:
    return [member for union in ("anyOf", "oneOf", "allOf") for member in field.get(union, [])]


def _of_names(field: Schema) -> bool:
    return isinstance(field.get("additionalProperties"), dict)


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).removeprefix("#/$defs/")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
