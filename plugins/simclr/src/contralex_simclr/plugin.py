"""The hooks of contralex-simclr. It imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Spec, hookimpl
from contralex_simclr.spec import BatchAndQueue, SKResNet


@hookimpl
def contralex_backbones() -> list[type[Spec]]:
    return [SKResNet]


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [BatchAndQueue]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_simclr") / "recipes"
