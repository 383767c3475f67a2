"""contralex-dinov2: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Layout, Spec, hookimpl
from contralex_dinov2.layouts import LAYOUTS
from contralex_dinov2.spec import PooledSinkhornSpec


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [PooledSinkhornSpec]


@hookimpl
def contralex_layouts() -> list[Layout]:
    return LAYOUTS


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_dinov2") / "recipes"
