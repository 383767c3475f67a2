"""``plugins`` of a spec: which plugins take part, each with its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from contralex.plugins.discovery import normal
from contralex.plugins.registry import Plugin, registry
from contralex.plugins.spec import Spec


@dataclass(frozen=True)
class PluginUse:
    """A plugin that a spec names: ``contralex-mine``, or ``{name: contralex-mine, patience: 5}``.

    ``settings`` are those that the plugin's ``contralex_settings`` declares; None where it declares none.
    """

    name: str
    settings: Spec | None = None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.validate, serialization=core_schema.plain_serializer_function_ser_schema(PluginUse.plain)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        with_settings = [
            _block(plugin.name, plugin.settings) for plugin in registry().plugins.values() if plugin.usable
        ]
        return {"anyOf": [{"type": "string"}, *filter(None, with_settings)]}

    @classmethod
    def validate(cls, value: Any) -> PluginUse:
        if isinstance(value, PluginUse):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise PydanticCustomError(
                "no_plugin", "the name of a plugin is expected here, or a block with its name and its settings", {}
            )
        name, values = value["name"], {key: each for key, each in value.items() if key != "name"}
        plugin = find_plugin(name)
        if plugin is None or not plugin.usable:
            return cls(name)  # which is refused where it is known whose mistake it is
        if plugin.settings is not None:
            return cls(name, plugin.settings.model_validate(values))
        if values:
            raise PydanticCustomError(
                "no_settings",
                "{plugin} has no settings, and here are {names}; write its name alone",
                {"plugin": name, "names": " and ".join(values)},
            )
        return cls(name)

    def plain(self) -> str | dict[str, Any]:
        """As it stands in a recipe."""
        return self.name if self.settings is None else {"name": self.name, **self.settings.model_dump(mode="json")}


def _block(name: str, settings: type[Spec] | None) -> dict[str, Any] | None:
    """The JSON Schema of a plugin with its settings; None where it has none."""
    if settings is None:
        return None
    schema = settings.model_json_schema()
    if "$defs" in schema:  # to which nothing could refer from inside of another schema
        schema = {"type": "object"}
    return {
        **schema,
        "properties": {"name": {"const": name}, **schema.get("properties", {})},
        "required": ["name", *schema.get("required", [])],
    }


def find_plugin(name: str) -> Plugin | None:
    """The distribution of this name, which pip would take for it."""
    known = registry().plugins
    return next((each for other, each in known.items() if not each.code and normal(other) == normal(name)), None)


def check_once(uses: Sequence[PluginUse]) -> None:
    """Raises where a plugin is named twice with different settings."""
    first: dict[str, PluginUse] = {}
    for use in uses:
        if first.setdefault(normal(use.name), use).settings != use.settings:
            raise PydanticCustomError(
                "named_twice", "plugins names {plugin} twice, with different settings; keep one", {"plugin": use.name}
            )
