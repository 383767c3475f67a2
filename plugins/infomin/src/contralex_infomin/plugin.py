"""contralex-infomin: what it offers. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import hookimpl
from contralex_infomin.command import view_information


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_infomin") / "recipes"


@hookimpl
def contralex_commands() -> dict[str, Callable[..., None]]:
    return {"view-information": view_information}
