"""contralex-cmc: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_cmc.spec import AlexNetBNSpec, LabSpec


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [LabSpec]


@hookimpl
def contralex_backbones() -> list[type[Spec]]:
    return [AlexNetBNSpec]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_cmc") / "recipes"
