"""contralex-slip: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_slip.spec import ImageTextCropsSpec, SlipTowersSpec


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [ImageTextCropsSpec]


@hookimpl
def contralex_encoders() -> list[type[Spec]]:
    return [SlipTowersSpec]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_slip") / "recipes"
