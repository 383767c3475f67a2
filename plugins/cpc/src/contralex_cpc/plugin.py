"""contralex-cpc: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_cpc.spec import CPCPatchesSpec, CPCSequenceSpec, PatchesSpec, SequenceFolderSpec, WindowSpec


@hookimpl
def contralex_encoders() -> list[type[Spec]]:
    return [CPCPatchesSpec, CPCSequenceSpec]


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [PatchesSpec, WindowSpec]


@hookimpl
def contralex_datasets() -> list[type[Spec]]:
    return [SequenceFolderSpec]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_cpc") / "recipes"
