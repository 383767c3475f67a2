"""Commands that look and change nothing: methods, show, diff, why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from contralex.cli.options import AllowCode, Data, Json, Preset, Recipe, Sets, print_json, print_table
from contralex.cli.plugins import warn_of_unmatched


def methods(as_json: Json = False) -> None:
    """List the installed recipes and their presets."""
    from contralex.api.method_list import methods

    found = methods()
    rows = [asdict(method) for method in found]
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo("No recipes are installed yet; methods come as packages, such as: pip install contralex-moco")
    else:
        table = [
            [row["name"], row["summary"], f"{row['plugin']} {row['version']}", ", ".join(row["presets"])]
            for row in rows
        ]
        print_table(["recipe", "what it is", "from", "presets"], table)
    for sentence in found.warnings:
        typer.echo(sentence, err=True)


def warn_of_unusable() -> None:
    from contralex.api.method_list import unusable_plugins

    for sentence in unusable_plugins():
        typer.echo(sentence, err=True)
    warn_of_unmatched()


def show(
    recipe: Recipe,
    preset: Preset = None,
    data: Data = None,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Print a recipe with all its settings, as YAML.

    The YAML holds all layers and defaults, and can be trained as it is.
    """
    from contralex.api import method_list, recipes
    from contralex.recipes.documents import MODELINE

    resolved = recipes.resolve(recipe, preset=preset, data=data, sets=sets, allow_code=allow_code)
    if as_json:
        print_json({"spec": resolved.data, "digest": resolved.digest, "plugins": resolved.plugins})
    else:
        typer.echo(f"{MODELINE}\n{resolved.to_yaml()}", nl=False)
        there = method_list.presets(recipe)
        if there and preset is None:
            typer.echo(f"# presets, for --preset: {', '.join(there)}")  # a comment: it is YAML that can be trained


def diff(
    a: Annotated[
        str, typer.Argument(metavar="A", help="The name of a recipe, or the path of a YAML file.", show_default=False)
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="Another recipe or YAML file.", show_default=False)],
    preset: Preset = None,
    allow_code: AllowCode = False,
    leaves: Annotated[bool, typer.Option("--leaves", help="Print a line for each value, with all defaults.")] = False,
    as_json: Json = False,
) -> None:
    """Show what differs between two recipes.

    Each block that differs is one line.
    """
    from contralex.api import recipes

    found = recipes.diff(a, b, preset=preset, allow_code=allow_code)
    if as_json:
        print_json([asdict(change) for change in found])
    elif leaves and found:
        typer.echo("\n".join(map(str, found)))
    else:
        typer.echo(repr(found))


def why(
    recipe: Recipe,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A value or a block, such as method.loss.", show_default=False)
    ],
    preset: Preset = None,
    data: Data = None,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Say where a value comes from.

    The layers that set it are listed, and the first one holds.
    """
    from contralex.api import recipes
    from contralex.recipes.diff import shown

    found = recipes.why(recipe, path, preset=preset, data=data, sets=sets, allow_code=allow_code)
    if as_json:
        listed = {
            leaf: [{"value": origin.value, "from": str(origin)} for origin in history]
            for leaf, history in found.items()
        }
        print_json(listed)
        return
    for leaf, history in found.items():
        *before, last = history
        typer.echo(f"{leaf} = {shown(last.value)}\n    {last}")
        for origin in reversed(before):
            typer.echo(f"    over {shown(origin.value)}: {origin}")
