"""The JSON Schema of a recipe file, for everything that is installed: what a YAML editor completes and checks.

pydantic writes the schema of each kind; this module joins them. A file is one layer of several, so a block may leave
out whatever a layer below says, its ``kind`` too, and say ``null`` to take a value out where there is a default. An
item of a list is replaced whole, so there everything stands.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from contralex.plugins.hooks import SLOTS
from contralex.plugins.registry import Registry, registry
from contralex.plugins.spec import SLOT
from contralex.recipes.documents import PARTS
from contralex.recipes.run_spec import RunSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def recipe_schema(known: Registry | None = None) -> Schema:
    """Of every kind and recipe in ``known``; without it, of this environment."""
    known = known or registry()
    found = {slot: {kind: known.find(slot, kind) for kind in known.kinds(slot)} for slot in SLOTS}
    specs: list[Any] = list(dict.fromkeys([RunSpec, *(spec for kinds in found.values() for spec in kinds.values())]))
    references, joined = models_json_schema([(spec, "validation") for spec in specs], ref_template="#/$defs/{model}")
    names = {spec: _name(references[spec, "validation"]) for spec in specs}
    slots = {slot: {kind: names[spec] for kind, spec in kinds.items()} for slot, kinds in found.items()}
    writer = _Writer(joined["$defs"], slots)
    run = writer.write(joined["$defs"][names[RunSpec]], whole=False)
    written_for = ", ".join(f"{plugin.name} {plugin.version}" for plugin in known.plugins.values() if plugin.usable)
    return {
        "$schema": DIALECT,
        "$comment": f"written by `contralex schema` for {written_for}",
        "title": "A contralex recipe",
        "type": "object",
        "properties": _root(run["properties"], list(known.recipes())),
        "required": ["schema"],
        "additionalProperties": False,
        "$defs": dict(sorted(writer.definitions.items())),
    }


def _root(run: dict[str, Schema], recipes: list[str]) -> dict[str, Schema]:
    """What a file may hold beside the blocks of a run."""
    preset = {"type": "object", "properties": {key: run[key] for key in PARTS}, "additionalProperties": False}
    file = {"anyOf": [{"type": "string"}, {**run["code"]["items"], "required": ["file"]}]}
    only_in_files: dict[str, Schema] = {
        "schema": {"const": 1, "description": "the version of the recipe format"},
        "extends": {
            "anyOf": [{"enum": sorted(recipes)}, {"type": "string"}],
            "description": "one parent: an installed recipe by its name, or a file by its path",
        },
        "code": {
            "anyOf": [*file["anyOf"], {"type": "array", "items": file}],
            "description": "Python files with hooks, by their paths from here; run only with --allow-code",
        },
        "presets": {
            "type": "object",
            "additionalProperties": preset,
            "description": f"named changes of {', '.join(PARTS)}, for --preset",
        },
    }
    properties = {**run, **only_in_files}
    first = ["schema", "name", "extends"]
    return {key: properties[key] for key in [*first, *(key for key in properties if key not in first)]}


class _Writer:
    """Rewrites pydantic's schemas. ``whole``: inside a list, where nothing is merged with a layer below."""

    def __init__(self, given: dict[str, Schema], slots: dict[str, dict[str, str]]) -> None:
        self.given = given
        self.slots = slots
        self.definitions: dict[str, Schema] = {}

    def write(self, schema: Schema, whole: bool) -> Schema:
        if SLOT in schema:
            return self._same_but(schema, self._slot(str(schema[SLOT]), whole))
        out = {key: value for key, value in schema.items() if key not in ("title", "discriminator", "required")}
        if "$ref" in schema:
            out["$ref"] = self._reference(_name(schema), whole)
        if "properties" in schema:
            out["properties"] = {name: self.write(field, whole) for name, field in schema["properties"].items()}
        if whole and "required" in schema:
            out["required"] = schema["required"]
        if isinstance(schema.get("additionalProperties"), dict):
            out["additionalProperties"] = self.write(schema["additionalProperties"], whole)
        if "patternProperties" in schema:  # blocks by names of the user's own that have a pattern, such as look_ups
            out["patternProperties"] = {
                pattern: self.write(field, whole) for pattern, field in schema["patternProperties"].items()
            }
        if isinstance(schema.get("items"), dict):
            out["items"] = self.write(schema["items"], whole=True)
        if "prefixItems" in schema:
            out["prefixItems"] = [self.write(item, whole=True) for item in schema["prefixItems"]]
        for union in ("oneOf", "anyOf"):
            if union in schema:
                out[union] = self._union(schema[union], whole)
        return out

    def _union(self, members: list[Schema], whole: bool) -> list[Schema]:
        kinds = {self._kind(member): _name(member) for member in members if self._kind(member)}
        others = [self.write(member, whole) for member in members if not self._kind(member)]
        return [*others, *self._choice(kinds, whole)]

    def _slot(self, slot: str, whole: bool) -> Schema:
        """The definition of a slot: a kind in short, a block of one kind, or a block whose kind stands below."""
        name = f"slot.{slot}" + (".whole" if whole else "")
        if name not in self.definitions:
            self.definitions[name] = {}  # a kind may have a slot like the one that it is in
            kinds = self.slots[slot]
            short: Schema = {"type": "string", "enum": list(kinds)}
            short["description"] = "short for a block with this kind and nothing else"
            self.definitions[name] = {"oneOf": [short, *self._choice(kinds, whole)]}
        return {"$ref": f"#/$defs/{name}"}

    def _choice(self, kinds: dict[str, str], whole: bool) -> list[Schema]:
        references = [{"$ref": self._reference(name, whole)} for name in kinds.values()]
        branches: list[Schema] = [{**reference, "required": ["kind"]} for reference in references]
        if references and not whole:
            branches.append({"not": {"required": ["kind"]}, "type": "object", "anyOf": references})
        return branches

    def _reference(self, given: str, whole: bool) -> str:
        name = given + (".whole" if whole else "")
        if name not in self.definitions:
            self.definitions[name] = {}
            written = self.definitions[name] = self.write(self.given[given], whole)
            for field, schema in written.get("properties", {}).items():
                if not whole and field != "kind" and field not in self.given[given].get("required", ()):
                    written["properties"][field] = _or_null(schema)
        return f"#/$defs/{name}"

    def _kind(self, member: Schema) -> str:
        """The kind of a member of a union, where it is a reference to a spec that has one."""
        target = self.given[_name(member)] if "$ref" in member else {}
        return str(target.get("properties", {}).get("kind", {}).get("const", ""))

    def _same_but(self, schema: Schema, reference: Schema) -> Schema:
        described = {"description": schema["description"]} if "description" in schema else {}
        return {**described, **reference}


def _or_null(schema: Schema) -> Schema:
    null = {"type": "null"}
    if null in schema.get("anyOf", ()):
        return schema
    about = {key: value for key, value in schema.items() if key in ("description", "default")}
    return {**about, "anyOf": [{key: value for key, value in schema.items() if key not in about}, null]}


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).removeprefix("#/$defs/")
