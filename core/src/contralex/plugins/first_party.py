"""What first-party distributions offer, installed or not: written by ``tools/facts.py``. It imports no spec."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from typing import Any

from contralex.plugins.discovery import VARIABLE, Choice, InstalledPlugin, core_version, installed, normal
from contralex.plugins.hooks import PROJECT


@lru_cache(maxsize=1)
def _known() -> dict[str, Any]:
    text = resources.files("contralex").joinpath("known.json").read_text("utf-8")
    facts: dict[str, Any] = json.loads(text)
    return facts


def known_kinds() -> dict[str, dict[str, str]]:
    """slot -> kind -> the distribution that offers it."""
    kinds: dict[str, dict[str, str]] = _known()["kinds"]
    return kinds


def known_commands() -> dict[str, str]:
    """command -> the distribution that offers it."""
    commands: dict[str, str] = _known()["commands"]
    return commands


def known_recipes() -> dict[str, str]:
    """recipe -> the distribution that offers it."""
    recipes: dict[str, str] = _known()["recipes"]
    return recipes


def list_commands() -> dict[str, tuple[str, str]] | None:
    """The distribution and the summary of each command that plugins bring here, without an import of any of them.

    None where that is not known: where a plugin is not one of ours, or of another version than this core.
    """
    there = _ours(installed(), Choice(os.environ.get(VARIABLE, "")))
    if there is None:
        return None
    names, summaries = {found.name for found in there}, _known()["summaries"]
    return {name: (owner, summaries[name]) for name, owner in known_commands().items() if owner in names}


@dataclass(frozen=True)
class ListedRecipes:
    """Recipes by their names: whose each is, and its file. ``unmatched``: as of a registry."""

    recipes: dict[str, tuple[InstalledPlugin, Traversable]]
    unmatched: list[str]

    def files_of(self, plugin: InstalledPlugin) -> dict[str, Traversable]:
        return {name: file for name, (owner, file) in self.recipes.items() if owner is plugin}


def list_recipes() -> ListedRecipes | None:
    """The recipes that plugins bring here, without an import of what else they bring.

    None where that is not known: as of :func:`list_commands`, or where a package lacks its entry module, or has other
    recipes than those of this release.
    """
    return list_recipes_of(installed(), Choice(os.environ.get(VARIABLE, "")))


def list_recipes_of(plugins: Sequence[InstalledPlugin], choice: Choice) -> ListedRecipes | None:
    """The same of these plugins."""
    there = _ours(plugins, choice)
    recipes: dict[str, tuple[InstalledPlugin, Traversable]] = {}
    for found in there or ():
        files = _recipe_files(found)
        if files is None:
            return None
        recipes |= {name: (found, file) for name, file in files.items()}
    unmatched = choice.unmatched([PROJECT, *(found.name for found in plugins)])
    return None if there is None else ListedRecipes(recipes, unmatched)


def _recipe_files(plugin: InstalledPlugin) -> dict[str, Traversable] | None:
    """Those of its package, where they are the ones that are known; None where they are not."""
    names = {name for name, owner in known_recipes().items() if owner == plugin.name}
    try:
        if find_spec(plugin.module) is None:
            return None
        folder = resources.files(plugin.module.partition(".")[0]) / "recipes"
        there = {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}
    except (ImportError, OSError):
        return None
    return there if there.keys() == names else None


def _ours(plugins: Sequence[InstalledPlugin], choice: Choice) -> list[InstalledPlugin] | None:
    """Those that are not blocked; None where one of them is not ours, of another version than this core, or damaged."""
    ours = set(_known()["distributions"])
    there = [found for found in plugins if normal(found.name) != PROJECT and choice.allows(found.name)]
    if any(
        found.name not in ours or found.version != core_version() or found.problem or found.misfit for found in there
    ):
        return None
    return there
