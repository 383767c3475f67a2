"""contralex-mae: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_mae.spec import MAE, Masked, Patches, SquaredError


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [Masked]


@hookimpl
def contralex_encoders() -> list[type[Spec]]:
    return [MAE]


@hookimpl
def contralex_key_encoders() -> list[type[Spec]]:
    return [Patches]


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [SquaredError]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_mae") / "recipes"
