"""contralex-ijepa: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_ijepa.spec import BlockViewsSpec, IJEPASpec, PatchViTSpec, SmoothL1Spec


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [BlockViewsSpec]


@hookimpl
def contralex_backbones() -> list[type[Spec]]:
    return [PatchViTSpec]


@hookimpl
def contralex_encoders() -> list[type[Spec]]:
    return [IJEPASpec]


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [SmoothL1Spec]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_ijepa") / "recipes"
