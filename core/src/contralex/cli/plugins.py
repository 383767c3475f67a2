"""``contralex plugins``: which plugins there are and whether each works; ``plugins show`` says all about one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from contralex.cli.options import Json, print_json, print_table
from contralex.errors import ContralexError, did_you_mean, find_similar

if TYPE_CHECKING:
    from contralex.plugins.registry import Plugin


def plugins(context: typer.Context, as_json: Json = False) -> None:
    """List the plugins and whether each works."""
    if context.invoked_subcommand is not None:
        return
    from contralex.plugins.registry import registry

    known = registry()
    if as_json:
        print_json({"plugins": [_row(plugin) for plugin in known.plugins.values()], "unmatched": known.unmatched})
        return
    table = [
        [plugin.name, plugin.version, plugin.state, plugin.reason or _offers(plugin)]
        for plugin in known.plugins.values()
    ]
    print_table(["plugin", "version", "state", "what it offers, or why not"], table)
    warn_of_unmatched()


def show(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="The plugin's distribution, such as contralex-moco.", show_default=False),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="SLOT.KIND", help="One kind, such as targets.key_vector: its fields and bounds.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show one plugin, or one kind.

    Of a plugin, whatever its state: where it is, what it offers, and why it does not work. Of a kind: its fields with
    their bounds, and what it needs and gives.
    """
    if kind is not None and name is None:
        _show_kind(kind, as_json)
        return
    if name is None or kind is not None:
        raise ContralexError(
            "plugins show: name one plugin, or one kind with --kind, such as --kind targets.key_vector"
        )
    facts = _facts(_find(name))
    if as_json:
        print_json(facts)
        return
    kinds, settings = facts.pop("kinds"), facts.pop("settings", [])
    facts["editable"] = {True: "yes", False: "no", None: ""}[facts["editable"]]
    rows = [[key.replace("_", " "), ", ".join(value) if isinstance(value, list) else value or "-"]
            for key, value in facts.items()]  # fmt: skip
    print_table(["what", "value"], rows)
    offered = [
        [slot, kind["kind"], kind["summary"], kind["source"] or "-"] for slot, found in kinds.items() for kind in found
    ]
    if offered:
        typer.echo()
        print_table(["slot", "kind", "what it is", "source"], offered)
    if settings:
        typer.echo()
        _print_fields("setting", settings)


def _show_kind(path: str, as_json: bool) -> None:
    """Print one kind, such as ``targets.key_vector``."""
    from contralex.plugins.kind_facts import find_kind, kind_facts

    slot, spec = find_kind(path)
    facts = kind_facts(slot, spec)
    if as_json:
        print_json(facts)
        return
    typer.echo(f"{facts['documentation']}\n")
    rows = [[key, facts[key]] for key in ("kind", "slot", "from", "source", "gives") if facts[key]]
    print_table(["", ""], [*rows, *(["needs", need] for need in facts["needs"])])
    if facts["fields"]:
        typer.echo()
        _print_fields("field", facts["fields"])


def _print_fields(title: str, fields: list[dict[str, Any]]) -> None:
    columns = ("field", "type", "bounds", "default", "description")
    rows = [[field[key] for key in columns] for field in fields]
    print_table([title, "type", "bounds", "default", "what it is"], rows)


def warn_of_unmatched() -> None:
    from contralex.plugins.discovery import unmatched
    from contralex.plugins.registry import registry

    for name in registry().unmatched:
        typer.echo(unmatched(name), err=True)


def _find(name: str) -> Plugin:
    from contralex.plugins.discovery import normal
    from contralex.plugins.registry import registry

    known = {normal(each): plugin for each, plugin in registry().plugins.items()}
    if normal(name) in known:
        return known[normal(name)]
    # People leave out the beginning that all first-party names have.
    near = [each for each in known if each == f"contralex-{normal(name)}"]
    way = did_you_mean(near or find_similar(normal(name), known, 3)) or f"there are {', '.join(known)}"
    raise ContralexError(f"plugins show: no plugin {name!r} is installed; {way}")


def _row(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "version": plugin.version,
        "state": plugin.state,
        "reason": plugin.reason,
        "kinds": {slot: [spec.kind_name() for spec in specs] for slot, specs in plugin.kinds.items() if specs},
        "recipes": sorted(plugin.recipes),
        "commands": sorted(plugin.commands),
    }


def _offers(plugin: Plugin) -> str:
    row = _row(plugin)
    groups = {
        **row["kinds"],
        "recipes": row["recipes"],
        "commands": row["commands"],
        "hooks": _life_cycle(plugin),
    }
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in groups.items() if names)


def _facts(plugin: Plugin) -> dict[str, Any]:
    from contralex.plugins.hooks import PROJECT
    from contralex.plugins.kind_facts import field_facts
    from contralex.plugins.kind_list import summary

    found = plugin.found
    return {
        "name": plugin.name,
        "version": plugin.version,
        "state": plugin.state,
        "reason": plugin.reason,
        "asks_for": f"{PROJECT}{found.requires}" if found and found.requires else "",
        "location": found.location if found else _folder(plugin),
        "editable": found.editable if found else None,
        "entry_point": found.entry_point if found else "",
        "kinds": {
            slot: [
                {"kind": spec.kind_name(), "summary": summary(spec), "source": spec.source}
                for spec in sorted(specs, key=lambda spec: spec.kind_name())
            ]
            for slot, specs in plugin.kinds.items()
            if specs
        },
        "recipes": sorted(plugin.recipes),
        "commands": sorted(plugin.commands),
        "hooks": plugin.hooks,
        **({"settings": field_facts(plugin.settings)} if plugin.settings is not None else {}),
    }


def _life_cycle(plugin: Plugin) -> list[str]:
    """The hooks that take part in a run, by their short names."""
    from contralex.plugins.hooks import SLOTS

    offers = (*SLOTS.values(), "contralex_recipes", "contralex_commands", "contralex_settings")
    return [name.removeprefix("contralex_") for name in plugin.hooks if name not in offers]


def _folder(plugin: Plugin) -> str:
    """The core has no entry point; it is where its package is."""
    from importlib.resources import files

    return str(files(plugin.name))
