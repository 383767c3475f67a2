"""What is checked: a plugin's kinds and recipes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from pydantic import ValidationError

from contralex.plugins.registry import Plugin
from contralex.plugins.spec import Spec
from contralex.testing.outcome import Failed


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


def kinds_of(plugin: Plugin) -> list[Kind]:
    return list(_kinds(plugin))


def recipes_of(plugin: Plugin) -> list[RecipeFile]:
    return [RecipeFile(name, file) for name, file in sorted(plugin.recipes.items())]


def _kinds(plugin: Plugin) -> Iterator[Kind]:
    for slot, specs in plugin.kinds.items():
        for cls in specs:
            yield Kind(slot, cls)
