"""contralex-mae: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Layout, Spec, hookimpl
from contralex_mae.layouts import LAYOUTS
from contralex_mae.spec import MAESpec, MaskedViewsSpec, PatchKeysSpec, SquaredErrorSpec


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [MaskedViewsSpec]


@hookimpl
def contralex_encoders() -> list[type[Spec]]:
    return [MAESpec]


@hookimpl
def contralex_key_encoders() -> list[type[Spec]]:
    return [PatchKeysSpec]


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [SquaredErrorSpec]


@hookimpl
def contralex_layouts() -> list[Layout]:
    return LAYOUTS


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_mae") / "recipes"
