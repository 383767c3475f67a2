"""The commands that plugins bring, beside our own.

typer has click's classes under another name since it carries a copy of click, so none is named here.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from contralex.errors import ContralexError


class WithPlugins(TyperGroup):
    """Plugins are asked for commands only where a name is not one of ours, or the list of all is wanted."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(_offered())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        function = _offered().get(cmd_name)
        if function is not None:
            return _command(cmd_name, function)

        from contralex.plugins.registry import known_commands, registry

        if cmd_name in known_commands():
            raise ContralexError(registry().command_hint(cmd_name))
        return None


def _offered() -> dict[str, Any]:
    from contralex.plugins.registry import registry

    usable = (plugin for plugin in registry().plugins.values() if plugin.usable)
    return {name: function for plugin in usable for name, function in plugin.commands.items()}


def _command(name: str, function: Any) -> Any:
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command(name)(function)
    return typer.main.get_command(alone)
