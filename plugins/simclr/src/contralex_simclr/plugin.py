"""The hooks of contralex-simclr. It imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Layout, Spec, hookimpl
from contralex_simclr.commands import distill, finetune
from contralex_simclr.layouts import LAYOUTS
from contralex_simclr.spec import BatchAndQueueSpec, SKResNetSpec


@hookimpl
def contralex_backbones() -> list[type[Spec]]:
    return [SKResNetSpec]


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [BatchAndQueueSpec]


@hookimpl
def contralex_layouts() -> list[Layout]:
    return LAYOUTS


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_simclr") / "recipes"


@hookimpl
def contralex_commands() -> dict[str, Callable[..., None]]:
    return {"finetune": finetune, "distill": distill}
