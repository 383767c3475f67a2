"""``contralex inspect``: what a checkpoint holds, and whether it is whole. Imports no torch, and runs nothing of it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contralex import progress
from contralex.cli.options import Checkpoint, Json, must_exist, print_json, print_table
from contralex.errors import ContralexError

if TYPE_CHECKING:
    from contralex.training.checkpoints.header import Stored
    from contralex.training.checkpoints.state import CheckpointState


def inspect(
    checkpoint: Checkpoint,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a checkpoint holds, and any damage.

    Nothing of the checkpoint is run. The exit status is 1 if it is damaged.
    """
    progress.listen("stderr")
    with progress.during(f"Reading {checkpoint}"):
        found = contents(checkpoint)
    if as_json:
        print_json(found)
    else:
        _print(found, tensors)
    if found["problems"]:
        raise typer.Exit(1)


def contents(path: Path) -> dict[str, Any]:
    """Everything that is printed, as plain data. Of a run's folder, the checkpoint that it would go on from."""
    from contralex.training.checkpoints import header, manifest, read

    must_exist(path)
    folder = path if read.names_a_step(path) else read.open_checkpoint(path).folder
    files = manifest.files_of(folder)
    problems = [f"{folder / file.name}: {file.problem}" for file in files if file.problem]
    state: CheckpointState | None = None
    try:
        state = read.read_state(folder)
        read.open_checkpoint(folder)
    except ContralexError as error:
        if not problems:
            problems.append(str(error))
    listed: dict[str, list[dict[str, Any]]] = {}
    for name in (manifest.MODEL, manifest.OPTIMIZER):
        try:
            listed[name] = [_plain(tensor) for tensor in header.read(folder / name)]
        except ContralexError as error:
            if not problems:
                problems.append(str(error))
    return {
        "folder": str(folder),
        **{key: getattr(state, key, None) for key in ("step", "epoch", "digest", "metrics", "drift", "spec")},
        "plugins": [_plugin(name, version) for name, version in (state.plugins if state else {}).items()],
        "code": [_code(entry) for entry in _entries(state.spec if state else {})],
        "tensors": listed,
        "files": [asdict(file) for file in files],
        "problems": problems,
    }


def _plain(tensor: Stored) -> dict[str, Any]:
    return {**asdict(tensor), "shape": list(tensor.shape)}


def _plugin(name: str, version: str) -> dict[str, Any]:
    try:
        installed: str | None = metadata.version(name)
    except metadata.PackageNotFoundError:
        installed = None
    return {"name": name, "version": version, "installed": installed}


def _entries(spec: dict[str, Any]) -> list[dict[str, str]]:
    code = spec.get("code")
    entries = code if isinstance(code, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and all(isinstance(v, str) for v in entry.values())]


def _code(entry: dict[str, str]) -> dict[str, Any]:
    """A code file, and whether what lies at its path is still what was run."""
    from contralex.files import opened

    now = "missing"
    try:
        with opened(Path(entry["file"])) as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == entry.get("sha256")
        now = "unchanged" if same else "changed"
    except (OSError, ValueError, KeyError):
        pass
    return {"file": entry.get("file"), "sha256": entry.get("sha256"), "now": now}


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
