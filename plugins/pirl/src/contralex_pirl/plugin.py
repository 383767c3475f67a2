"""contralex-pirl: what it offers. Its parts are all of the core's vocabulary."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import hookimpl


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_pirl") / "recipes"
