"""contralex-barlow: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Layout, Spec, hookimpl
from contralex_barlow.layouts import LAYOUTS
from contralex_barlow.spec import CrossCorrelationSpec, LocalVICRegSpec, NearestPlaceSpec, VICRegSpec


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [CrossCorrelationSpec, VICRegSpec, LocalVICRegSpec]


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [NearestPlaceSpec]


@hookimpl
def contralex_layouts() -> list[Layout]:
    return LAYOUTS


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_barlow") / "recipes"
