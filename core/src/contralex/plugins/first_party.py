"""What first-party distributions offer, installed or not: written by ``tools/facts.py``. It imports no spec."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from importlib import resources
from typing import Any

from contralex.plugins.discovery import VARIABLE, Choice, core_version, installed, normal
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
    choice = Choice(os.environ.get(VARIABLE, ""))
    ours = set(_known()["distributions"])
    there = [found for found in installed() if normal(found.name) != PROJECT and choice.allows(found.name)]
    if any(
        found.name not in ours or found.version != core_version() or found.problem or found.misfit for found in there
    ):
        return None
    names, summaries = {found.name for found in there}, _known()["summaries"]
    return {name: (owner, summaries[name]) for name, owner in known_commands().items() if owner in names}
