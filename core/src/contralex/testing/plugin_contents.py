"""A plugin's kinds and recipes, which are what the checks are about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from pydantic import ValidationError

from contralex.plugins.registry import Plugin
from contralex.plugins.spec import Spec
from contralex.testing.check_errors import Failed


@dataclass(frozen=True)
class Kind:
    """A spec class in its slot."""

    slot: str
    cls: type[Spec]

    def __str__(self) -> str:
        return f"{self.slot} {self.cls.kind_name()}"

    def example(self) -> Spec:
        """A tiny instance: ``Spec.example`` over the defaults."""
        try:
            return self.cls.model_validate({"kind": self.cls.kind_name(), **self.cls.example})
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, one["loc"])) or one["msg"] for one in error.errors())
            raise Failed(
                f"{self.cls.__name__}.example makes no valid spec ({fields}); give it the values of a tiny one"
            ) from None


@dataclass(frozen=True)
class RecipeFile:
    name: str
    file: Traversable

    def __str__(self) -> str:
        return f"recipe {self.name}"


def list_kinds(plugin: Plugin) -> list[Kind]:
    return list(_kinds(plugin))


def list_recipes(plugin: Plugin) -> list[RecipeFile]:
    return [RecipeFile(name, file) for name, file in sorted(plugin.recipes.items())]


def _kinds(plugin: Plugin) -> Iterator[Kind]:
    for slot, specs in plugin.kinds.items():
        for cls in specs:
            yield Kind(slot, cls)
