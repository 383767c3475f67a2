"""contralex-instdisc: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_instdisc.spec import ProximalSpec


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [ProximalSpec]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_instdisc") / "recipes"
