"""contralex-dino: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Layout, Spec, hookimpl
from contralex_dino.layouts import LAYOUTS
from contralex_dino.spec import CentredSoftmaxSpec, WeightNormedPrototypesSpec


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [WeightNormedPrototypesSpec]


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [CentredSoftmaxSpec]


@hookimpl
def contralex_layouts() -> list[Layout]:
    return LAYOUTS


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_dino") / "recipes"
