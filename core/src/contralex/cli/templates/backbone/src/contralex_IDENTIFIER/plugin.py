"""contralex-NAME: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_IDENTIFIER.spec import AllConvSpec


@hookimpl
def contralex_backbones() -> list[type[Spec]]:
    return [AllConvSpec]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_IDENTIFIER") / "recipes"
