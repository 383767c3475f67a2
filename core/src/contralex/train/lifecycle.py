"""Calls the life-cycle hooks of the plugins that a spec uses, and of no others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from contralex.errors import ContralexError
from contralex.registry import registry


class LifeCycle:
    """``used``: the distributions that the spec uses. Installing a plugin must not change training."""

    def __init__(self, used: Iterable[str]) -> None:
        found = registry()
        self._plugins = [found.plugins[name] for name in used if name in found.plugins]
        for plugin in self._plugins:
            plugin.state = "loaded"
        self._manager = found.manager

    def call(self, hook: str, **arguments: Any) -> None:
        for plugin in self._plugins:
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                if implementation.plugin is plugin.module:
                    self._one(plugin.name, hook, implementation, arguments)

    def _one(self, name: str, hook: str, implementation: Any, arguments: dict[str, Any]) -> None:
        try:
            implementation.function(*(arguments[each] for each in implementation.argnames))
        except ContralexError:
            raise
        except Exception as error:
            raise ContralexError(
                f"the plugin {name} failed in its hook {hook}: {type(error).__name__}: {error}"
            ) from error
