"""The commands that plugins bring, beside our own, and the help that lists all in groups.

typer has click's classes under another name since it carries a copy of click, so none is named here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from contralex.cli.evaluate import command_for
from contralex.errors import ContralexError
from contralex.plugins.first_party import list_commands

EVAL = "eval "  # how the names of the commands begin that evaluate
SUMMARY_LIMIT = 50  # characters of a command's summary, which fits beside the longest name in 80 columns


class CommandGroup(TyperGroup):
    """Its help lists commands under the heading that each names as ``rich_help_panel``, in the order of the list."""

    def rows(self, ctx: Any, names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
        """The heading, the name and the summary of each of these commands that is not hidden."""
        for name in names:
            command: Any = self.get_command(ctx, name)  # typer's, which has a panel
            if command is not None and not command.hidden:
                yield command.rich_help_panel or "Commands", name, command.get_short_help_str(SUMMARY_LIMIT)

    def all_rows(self, ctx: Any) -> Iterator[tuple[str, str, str]]:
        return self.rows(ctx, self.list_commands(ctx))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for heading, name, summary in self.all_rows(ctx):
            groups.setdefault(heading, []).append((name, summary))
        width = max((len(name) for rows in groups.values() for name, _ in rows), default=0)
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), summary) for name, summary in rows])


class WithPlugins(CommandGroup):
    """Plugins are asked for commands only where a name is not one of ours, or the list of all is wanted.

    A plugin's command ``eval NAME`` belongs to the group ``eval``, and ``contralex NAME`` is its hidden alias.
    """

    prefix = ""

    def all_rows(self, ctx: Any) -> Iterator[tuple[str, str, str]]:
        """Where all plugins are known, their commands are listed without an import of the plugins."""
        known = list_commands()
        if known is None:
            yield from super().all_rows(ctx)
            return
        yield from self.rows(ctx, super().list_commands(ctx))
        for full_name in sorted(name for name in known if name.startswith(self.prefix)):
            owner, summary = known[full_name]
            name = full_name.removeprefix(self.prefix)
            if " " not in name:
                yield f"From {owner}", name, summary

    def list_commands(self, ctx: Any) -> list[str]:
        brought = {name.removeprefix(self.prefix) for name in _brought() if name.startswith(self.prefix)}
        return [*super().list_commands(ctx), *sorted(name for name in brought if " " not in name)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        brought = _brought()
        full_name, alias_of = f"{self.prefix}{cmd_name}", f"{EVAL}{cmd_name}"
        for name in (full_name, alias_of):
            if name in brought:
                plugin, function = brought[name]
                return _command(cmd_name, function, f"From {plugin}", hidden=name != full_name)

        from contralex.plugins.first_party import known_commands
        from contralex.plugins.registry import registry

        for name in (full_name, alias_of):
            if name in known_commands():
                raise ContralexError(registry().command_hint(name))
        return None


class EvalCommands(WithPlugins):
    """``contralex eval``: also any other name, which is a plugin's command that evaluates by training, as ``finetune``,
    or an evaluator of a plugin that the run uses."""

    prefix = EVAL

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in _brought():
            plugin, function = _brought()[cmd_name]
            return _command(cmd_name, function, f"From {plugin}", hidden=True)
        if found is None and not cmd_name.startswith("-") and not ctx.resilient_parsing:
            return _command(cmd_name, _evaluation_by(cmd_name.replace("-", "_")), "Commands", hidden=True)
        return found


def _evaluation_by(name: str) -> Callable[..., None]:
    """For an evaluator that only the run itself knows, because a plugin that it uses brings it."""
    return command_for(name, name, "Evaluate a run by an evaluator of a plugin.")


def _brought() -> dict[str, tuple[str, Any]]:
    """The plugin and the function of every command, by names such as ``finetune`` and ``eval zero-shot``."""
    from contralex.plugins.registry import registry

    usable = (plugin for plugin in registry().plugins.values() if plugin.usable)
    return {name: (plugin.name, function) for plugin in usable for name, function in plugin.commands.items()}


def _command(name: str, function: Any, heading: str, *, hidden: bool = False) -> Any:
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command(name, rich_help_panel=heading, hidden=hidden)(function)
    return typer.main.get_command(alone)
