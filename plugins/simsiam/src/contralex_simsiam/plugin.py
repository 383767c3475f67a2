"""The hooks of contralex-simsiam. It imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Layout, hookimpl
from contralex_simsiam.layouts import LAYOUTS


@hookimpl
def contralex_layouts() -> list[Layout]:
    return LAYOUTS


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_simsiam") / "recipes"
