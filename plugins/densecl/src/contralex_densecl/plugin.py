"""contralex-densecl: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_densecl.spec import BestPlaceSpec, PlaceQueueSpec


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [PlaceQueueSpec]


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [BestPlaceSpec]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_densecl") / "recipes"
