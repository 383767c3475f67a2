"""contralex-crd: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_crd.spec import CifarResNetSpec, DistilledSpec, OtherClassesSpec, SameSpec


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [SameSpec]


@hookimpl
def contralex_encoders() -> list[type[Spec]]:
    return [DistilledSpec]


@hookimpl
def contralex_backbones() -> list[type[Spec]]:
    return [CifarResNetSpec]


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [OtherClassesSpec]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_crd") / "recipes"
