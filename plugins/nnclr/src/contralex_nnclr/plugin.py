"""contralex-nnclr: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_nnclr.spec import NeighbourNCESpec, NeighbourSpec


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [NeighbourSpec]


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [NeighbourNCESpec]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_nnclr") / "recipes"
