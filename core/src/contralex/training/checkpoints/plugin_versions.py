"""Whether the plugins that a checkpoint was made with are there, in the same versions. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from contralex.errors import ContralexError
from contralex.plugins.registry import registry


def plugin_changes(folder: Path, plugins: Mapping[str, str], needed: Mapping[str, str] | None = None) -> Iterator[str]:
    """Versions that differ from those of the checkpoint in ``folder``. A plugin that is missing is refused, unless it
    is not among ``needed`` any more."""
    for name, version in plugins.items():
        plugin = registry().find_plugin(name)
        if plugin is not None and plugin.usable:
            if plugin.version != version:
                yield f"{name}: {version} → {plugin.version}"
        elif needed is not None and name not in needed:
            yield f"{name}: {version} → absent"
        elif plugin is None:
            raise ContralexError(
                f"{folder} was made with {name} {version}, which is missing: pip install {name}=={version}."
            )
        else:
            raise ContralexError(f"{folder} needs {name}, which is {plugin.state}: {plugin.reason}.")
