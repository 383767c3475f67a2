"""contralex-pirl: what it offers. All its parts are the core's."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import hookimpl


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_pirl") / "recipes"
