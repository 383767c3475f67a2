"""Commands that look and change nothing: methods, show, diff, why."""

from __future__ import annotations

from typing import Annotated

import typer

from contralex.cli.options import AllowCode, Data, Json, Preset, Recipe, Sets, print_json, print_table
from contralex.cli.plugins import warn_of_unmatched
from contralex.errors import ContralexError


def methods(as_json: Json = False) -> None:
    """List the recipes that are installed."""
    rows = _methods()
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo("No recipes are installed yet; methods come as packages, such as: pip install contralex-moco")
    else:
        table = [[row["name"], row["summary"], f"{row['plugin']} {row['version']}"] for row in rows]
        print_table(["recipe", "what it is", "from"], table)
    warn_of_unusable()


def _methods() -> list[dict[str, str]]:
    from contralex.plugins.registry import registry
    from contralex.recipes import yaml

    rows = []
    for name, (plugin, file) in sorted(registry().recipes().items()):
        try:
            head = yaml.read(file.read_text("utf-8"), f"{name}.yaml").data
            summary = str(head.get("summary", "")) if isinstance(head, dict) else ""
        except ContralexError as error:  # one broken recipe hides no other
            summary = f"cannot be read: {error}"
        rows.append({"name": name, "summary": summary, "plugin": plugin.name, "version": plugin.version})
    return rows


def warn_of_unusable() -> None:
    from contralex.plugins.registry import registry

    for plugin in registry().plugins.values():
        if plugin.state in ("broken", "conflict", "incompatible"):
            typer.echo(f"{plugin.name} is {plugin.state}: {plugin.reason}", err=True)
    warn_of_unmatched()


def show(
    recipe: Recipe,
    preset: Preset = None,
    data: Data = None,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Print a recipe with all its layers and defaults, as YAML that can be run again."""
    from contralex.recipes.documents import MODELINE
    from contralex.recipes.layers import resolve

    resolved = resolve(recipe, preset=preset, data=data, sets=sets or (), allow_code=allow_code)
    if as_json:
        print_json({"spec": resolved.data, "digest": resolved.digest, "plugins": resolved.plugins})
    else:
        typer.echo(f"{MODELINE}\n{resolved.to_yaml()}", nl=False)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A recipe or a YAML file.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.", show_default=False)],
    preset: Preset = None,
    allow_code: AllowCode = False,
    leaves: Annotated[bool, typer.Option("--leaves", help="A line for each value, with all defaults.")] = False,
    as_json: Json = False,
) -> None:
    """Print what differs between two recipes, a line for each block, and nothing else."""
    from dataclasses import asdict

    from contralex.recipes.diff import diff as compare
    from contralex.recipes.diff_summary import story
    from contralex.recipes.layers import resolve

    before, after = (resolve(recipe, preset=preset, allow_code=allow_code) for recipe in (a, b))
    changes = compare(before, after)
    if as_json:
        print_json([asdict(change) for change in changes])
        return
    for line in changes if leaves else story(before, after):
        typer.echo(str(line))
    if not changes:
        typer.echo(f"{a} and {b} are the same run.")


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
    """Print a value and which layers set it, the one that holds first."""
    from contralex.recipes.diff import shown
    from contralex.recipes.layers import resolve

    origins = resolve(recipe, preset=preset, data=data, sets=sets or (), allow_code=allow_code).origins
    found = {leaf: history for leaf, history in origins.items() if f"{leaf}.".startswith(f"{path}.")}
    if not found:
        raise ContralexError(f"{path}: {recipe} has no such value; {_near(path, list(origins))}")
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


def _near(path: str, leaves: list[str]) -> str:
    """Names beside the first part of the path that does not exist."""
    from contralex.recipes.validation_messages import near

    keys = path.split(".")
    for depth, key in enumerate(keys):
        above = ".".join(keys[:depth])
        inside = [leaf for leaf in leaves if not above or leaf.startswith(f"{above}.")]
        beside = list(dict.fromkeys(leaf.split(".")[depth] for leaf in inside))
        if key not in beside:
            return f"{above or 'a run'} is a single value" if not beside else near(key, beside)
    return "there are none"
