"""contralex-cpc: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_cpc.spec import CPCPatches, CPCSequence, Patches, SequenceFolder, Window


@hookimpl
def contralex_encoders() -> list[type[Spec]]:
    return [CPCPatches, CPCSequence]


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [Patches, Window]


@hookimpl
def contralex_datasets() -> list[type[Spec]]:
    return [SequenceFolder]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_cpc") / "recipes"
