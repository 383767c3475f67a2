"""contralex-tico: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_tico.spec import TiCoSpec


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [TiCoSpec]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_tico") / "recipes"
