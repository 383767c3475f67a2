"""``contralex inspect``: what a checkpoint holds, and whether it is whole. Imports no torch, and runs nothing of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from contralex import progress
from contralex.cli.options import Checkpoint, Json, print_json, print_table


def inspect(
    checkpoint: Checkpoint,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a checkpoint holds, and any damage.

    Nothing of the checkpoint is run. The exit status is 1 if it is damaged.
    """
    from contralex.api import inspecting

    progress.listen("stderr")
    found = inspecting.inspect(checkpoint)
    if as_json:
        print_json(found)
    else:
        _print(found, tensors)
    if found["problems"]:
        raise typer.Exit(1)


def _print(found: dict[str, Any], with_tensors: bool) -> None:
    from contralex.recipes import yaml

    typer.echo(f"{found['folder']}: step {found['step']}, digest {found['digest']}")
    if found["spec"] is not None:
        typer.echo(f"\n{yaml.dump(found['spec'])}", nl=False)
    if found["metrics"]:
        typer.echo("\nmetrics: " + ", ".join(f"{name} {value:g}" for name, value in found["metrics"].items()))
    for drift in found["drift"] or []:
        changes = drift.get("changes")
        listed = "; ".join(str(change) for change in changes) if isinstance(changes, list) else str(changes)
        typer.echo(f"allowed at step {drift.get('step')}: {listed}")
    if found["forked"]:
        forked = found["forked"]
        changes = "; ".join(f"{path}: {change}" for path, change in forked["changes"].items())
        typer.echo(f"fork of {forked['run']} from step {forked['step']} on: {changes or 'nothing changed'}")
    rows = [[plugin["name"], plugin["version"], _installed(plugin)] for plugin in found["plugins"]]
    _table(["plugin", "version", "now"], rows)
    _table(["code", "sha256", "now"], [[each["file"], each["sha256"], each["now"]] for each in found["code"]])
    for name, tensors in found["tensors"].items():
        if with_tensors:
            cells = [[each["name"], str(each["shape"]), each["dtype"], f"{each['bytes']:,}"] for each in tensors]
            _table([f"tensors of {name}", "shape", "type", "bytes"], cells)
    _table(["part", "tensors", "numbers", "types", "bytes"], _totals(found["tensors"]))
    files = found["files"]
    rows = [[each["name"], f"{each['size']:,}", each["sha256"][:12], each["problem"] or "ok"] for each in files]
    _table(["file", "bytes", "sha256", "state"], rows)
    for problem in found["problems"]:
        typer.echo(f"damaged: {problem}")


def _installed(plugin: dict[str, Any]) -> str:
    if plugin["installed"] == plugin["version"]:
        return ""
    return f"{plugin['installed']} is installed" if plugin["installed"] else "not installed"


def _totals(tensors: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """A row for each part of the model, one for the optimiser, and the sum."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for file, listed in tensors.items():
        for tensor in listed:
            part = tensor["name"].split(".")[0] if file.startswith("model") else "optimizer"
            parts.setdefault(part, []).append(tensor)
    if len(parts) > 1:
        parts["all"] = [tensor for listed in parts.values() for tensor in listed]
    return [
        [
            part,
            str(len(listed)),
            f"{sum(_numbers(tensor) for tensor in listed):,}",
            " ".join(sorted({tensor["dtype"] for tensor in listed})),
            f"{sum(tensor['bytes'] for tensor in listed):,}",
        ]
        for part, listed in parts.items()
    ]


def _numbers(tensor: dict[str, Any]) -> int:
    count = 1
    for size in tensor["shape"]:
        count *= size
    return count


def _table(columns: list[str], rows: list[list[Any]]) -> None:
    if rows:
        typer.echo("")
        print_table(columns, [[str(cell) for cell in row] for row in rows])
